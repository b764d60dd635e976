"""ReNoise: an inversion that comes closer.

ReNoise (arXiv:2403.14602) repeats each step backwards with what it led to. The picture that comes
back is nearly the one that went in, so that edits keep what they do not name.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
prompt = "a large red heart on a white background"
seen = model.generate(prompt, seed=3, steps=12, progress=False)

renoise = refiners.load_adapter("renoise", model)
source = {"picture": seen, "prompt": prompt}
options = {"steps": 12, "progress": False}
pictures = {"picture": seen}
again = model.generate(prompt, guidance=1.0, conditions={renoise: source}, **options)
pictures["made again"] = again

edit = "a large blue heart on a white background"
for start in (0.0, 0.4):
    conditions = {renoise: Condition(source, start=start)}
    title = f"edited from {start:.0%} of the steps on"
    pictures[title] = model.generate(edit, conditions=conditions, **options)
