"""Perp-Neg: a negative prompt that does not weaken the prompt.

What a negative prompt shares with the prompt is left out of it (arXiv:2304.04968): here "a star"
should be anything but yellow, and stay a star.
"""

import refiners

model = refiners.load_model("playground")
prompt, negative = "a star on a blue background", "a yellow star on a blue background"
options = {"guidance": 6.0, "steps": 12, "seed": 7, "progress": False}
pictures = {"a star": model.generate(prompt, **options)}

options["negative_prompt"] = negative
pictures["negative: a yellow star"] = model.generate(prompt, **options)
with refiners.load_adapter("perp-neg").on(model):
    pictures["perp-neg"] = model.generate(prompt, **options)
