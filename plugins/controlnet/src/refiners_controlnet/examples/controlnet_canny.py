"""ControlNet: follow the edges of a picture.

A side network reads edges and adds to the skip connections of the UNet (arXiv:2302.05543). Prompts
colour what the edges outline.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
canny = refiners.load_adapter("controlnet-canny", model)

# %%
# `preprocess` makes the edges from any picture.

options = {"seed": 7, "steps": 12, "progress": False}
prompt = "a heart on a white background"
seen = model.generate(prompt, conditions={canny: None}, **options).rotate(30, fillcolor="white")
edges = refiners.load_preprocessor("canny")(seen)
pictures = {"picture": seen, "its edges": edges}
for scale in (0.0, 0.5, 1.0):
    conditions = {canny: Condition(seen, scale=scale, preprocess=True)}
    image = model.generate("a red heart on a yellow background", conditions=conditions, **options)
    pictures[f"a red heart on yellow, scale {scale}"] = image
