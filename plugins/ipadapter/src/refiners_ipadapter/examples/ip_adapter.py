"""IP-Adapter: prompt with a picture.

A second attention beside that to the text reads the embedding of a picture (arXiv:2308.06721). With
an empty prompt the picture says everything; with a prompt the two share the work.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
seen = model.generate("a large yellow heart on a purple background", **options)

photo = refiners.load_adapter("ip-adapter", model)
pictures = {"picture": seen}
for prompt, scale in (("", 1.0), ("a star", 0.0), ("a star", 0.5), ("a star", 1.0)):
    conditions = {photo: Condition(seen, scale=scale)}
    title = f"{prompt or 'an empty prompt'}, scale {scale}"
    pictures[title] = model.generate(prompt, conditions=conditions, **options)
