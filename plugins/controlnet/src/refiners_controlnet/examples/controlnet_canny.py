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

seen = model.generate("a large star", conditions={canny: None}, seed=3, steps=12, progress=False)
edges = refiners.load_preprocessor("canny")(seen)
pictures = {"picture": seen, "its edges": edges}
for prompt in ("a red star on a yellow background", "a heart"):
    for scale in (0.4, 1.0):
        conditions = {canny: Condition(seen, scale=scale, preprocess=True)}
        image = model.generate(prompt, conditions=conditions, seed=7, steps=12, progress=False)
        pictures[f"{prompt}, scale {scale}"] = image
