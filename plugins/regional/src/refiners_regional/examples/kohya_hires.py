"""Kohya's hires fix: one subject in a large picture.

A model repeats its subject in pictures that are larger than those it has seen. Feature maps that
shrink in the first steps keep the composition of a small picture.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a red heart on a white background"
options = {"size": (160, 160), "steps": 16, "seed": 5, "progress": False}
pictures = {"160 x 160 of a model for 64 x 64": model.generate(prompt, **options)}

with refiners.load_adapter("kohya-hires", factor=2.0, until=0.5).on(model):
    pictures["kohya-hires, until 0.5"] = model.generate(prompt, **options)
