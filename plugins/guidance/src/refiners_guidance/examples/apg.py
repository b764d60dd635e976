"""APG: strong guidance without saturated colours.

Adaptive projected guidance (arXiv:2410.02416) guides across the prediction more than along it, so
that colours survive guidance that would break a picture.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"guidance": 25.0, "steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {"guidance 25": model.generate(prompt, **options)}

# %%
# `threshold` is the largest update. The default is for the latents of SDXL, which are larger.

with refiners.load_adapter("apg", threshold=4.0).on(model):
    pictures["apg, threshold 4"] = model.generate(prompt, **options)
with refiners.load_adapter("apg", threshold=4.0, eta=0.3).on(model):
    pictures["eta 0.3: some of the part along it"] = model.generate(prompt, **options)
