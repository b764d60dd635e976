"""LoRA: draw in a style that the model never saw.

Low-rank changes of weights (arXiv:2106.09685) taught the playground to outline things in ink. The
scale is the strength, for all places or for each.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
ink = refiners.load_adapter("lora-ink", model)

options = {"seed": 7, "steps": 12, "progress": False}
prompt = "a yellow star on a blue background"
pictures = {}
for scale in (0.0, 0.5, 1.0, {"unet.up": 1.0}):
    conditions = {ink: Condition(scale=scale)}
    pictures[f"scale {scale}"] = model.generate(prompt, conditions=conditions, **options)
