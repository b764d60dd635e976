"""An edit in the style of a picture.

An inversion holds a picture on its own noise, and a reference adds the subject of another one.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
options = {"steps": 12, "progress": False}
prompt = "a large red heart on a white background"
seen = model.generate(prompt, seed=3, **options)
other = model.generate("a large yellow star on a blue background", seed=5, **options)

renoise = refiners.load_adapter("renoise", model)
reference = refiners.load_adapter("reference-only", model)
source = Condition({"picture": seen, "prompt": prompt}, start=0.2)
pictures = {"picture": seen, "reference": other}
for title, conditions in {
    "edited": {renoise: source, reference: None},
    "edited with the reference": {renoise: source, reference: Condition(other, scale=0.8)},
}.items():
    pictures[title] = model.generate("a large heart", conditions=conditions, **options)
