"""A palette in ink.

The LoRA draws outlines, the palette chooses colours, and PAG makes the shapes firmer. Each keeps
its own scale.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
ink = refiners.load_adapter("lora-ink", model)
palette = refiners.load_adapter("palette", model)
pag = refiners.load_adapter("pag", model)
colours = [("#33ccdb", 1), ("#7a2e9e", 2)]

pictures = {}
for title, conditions in {
    "none": {ink: None, palette: None, pag: None},
    "ink": {palette: None, pag: None},
    "ink and palette": {palette: colours, pag: None},
    "ink, palette and PAG": {palette: colours, pag: Condition(scale=0.5)},
}.items():
    pictures[title] = model.generate("a large heart", conditions=conditions, **options)
