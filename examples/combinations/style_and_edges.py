"""One style on several outlines.

StyleAligned shares the style of the first picture, while a ControlNet gives each picture its own
edges.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
shapes = ["star", "heart", "ring"]
outlines = model.generate([f"a large {shape}" for shape in shapes], **options)

canny = refiners.load_adapter("controlnet-canny", model)
style = refiners.load_adapter("style-aligned", model, shift=1.0)
prompts = ["a red star on a yellow background", "a heart", "a ring"]
edges = Condition(outlines, preprocess=True)
apart = model.generate(prompts, conditions={canny: edges, style: None}, **options)
aligned = model.generate(prompts, conditions={canny: edges}, **options)
pictures = {"outlines": outlines, "with ControlNet": apart, "and StyleAligned": aligned}
