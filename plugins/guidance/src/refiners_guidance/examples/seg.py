"""SEG: lead away from a pass with blurred attention.

Smoothed energy guidance (arXiv:2408.00760) blurs the queries of a third pass. An infinite `sigma`
takes the mean of all queries.
"""

import math

import refiners

model = refiners.load_model("playground")
prompt = "a green ring on a pink background"
options = {"guidance": 1.0, "steps": 12, "seed": 7, "progress": False}
pictures = {"guidance 1": model.generate(prompt, **options)}

for strength in (0.7, 1.5):
    options_of_seg = {"layers": ["mid", "up"], "sigma": math.inf, "strength": strength}
    with refiners.load_adapter("seg", **options_of_seg).on(model):
        pictures[f"seg, strength {strength}"] = model.generate(prompt, **options)
