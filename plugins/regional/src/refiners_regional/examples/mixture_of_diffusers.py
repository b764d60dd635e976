"""Mixture of diffusers: a panorama from windows with soft edges.

Each window is predicted on its own (arXiv:2302.02412), and Gaussian weights join them before the
sampler takes one step. Windows overlap by half.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a red heart on a white background"
options = {"size": (256, 64), "steps": 12, "seed": 7, "progress": False}
panoramas = [model.generate(prompt, **options)]

with refiners.load_adapter("mixture-of-diffusers").on(model):
    panoramas.append(model.generate(prompt, **options))
pictures = {"256 x 64 at once, and in windows of 64 x 64": panoramas}
