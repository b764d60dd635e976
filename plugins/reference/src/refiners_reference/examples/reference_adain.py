"""Reference AdaIN: colours and contrast of a picture by its statistics.

Feature maps take the mean and the deviation, channel by channel, of those of a reference
(arXiv:1703.06868). `norm_weight` tells how many levels do.
"""

import refiners

model = refiners.load_model("playground")
seen = model.generate("a large yellow star on a blue background", seed=3, steps=12, progress=False)

options = {"seed": 7, "steps": 12, "progress": False}
pictures = {"reference": seen, "a large square": model.generate("a large square", **options)}
for weight in (1.0, 2.0):
    with refiners.load_adapter("reference-adain", norm_weight=weight).on(model) as adapter:
        image = model.generate("a large square", conditions={adapter: seen}, **options)
    pictures[f"norm_weight {weight:g}"] = image
