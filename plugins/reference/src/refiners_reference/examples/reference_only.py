"""Reference-only: subject and style by attention to a picture.

Every self-attention also attends to the keys and values of a reference, which passes through the
UNet as noisy as the picture is. There is nothing to train.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
seen = model.generate("a large yellow star on a blue background", seed=3, steps=12, progress=False)

options = {"seed": 7, "steps": 12, "progress": False}
pictures = {"reference": seen, "a large heart": model.generate("a large heart", **options)}
reference = refiners.load_adapter("reference-only", model)
for scale in (0.5, 1.0):
    conditions = {reference: Condition(seen, scale=scale)}
    image = model.generate("a large heart", conditions=conditions, **options)
    pictures[f"reference-only, scale {scale}"] = image
