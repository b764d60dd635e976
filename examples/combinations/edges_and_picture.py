"""Edges and a picture.

A ControlNet gives the outline, an IP-Adapter the colours, and the prompt almost nothing. The order
in which they are injected does not matter, not by a bit.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
outline = model.generate("a large star", **options)
colours = model.generate("a yellow heart on a purple background", **options)

canny = refiners.load_adapter("controlnet-canny", model)
photo = refiners.load_adapter("ip-adapter", model)
edges = Condition(outline, preprocess=True)
pictures = {"outline": outline, "colours": colours}
for title, conditions in {
    "ControlNet": {canny: edges, photo: None},
    "IP-Adapter": {canny: None, photo: colours},
    "both": {canny: edges, photo: Condition(colours, scale=0.8)},
}.items():
    pictures[title] = model.generate("", conditions=conditions, **options)
