"""A LoRA in one region.

Regional prompts give each half its prompt, and name the adapters that act there: the ink stays on
the left.
"""

import refiners

model = refiners.load_model("playground")
ink = refiners.load_adapter("lora-ink", model)
regions = refiners.load_adapter("regional-prompts", model)
options = {"size": (128, 64), "seed": 7, "steps": 12, "progress": False}
halves = [
    {"prompt": "a large yellow star on a blue background", "box": (0, 0, 0.5, 1)},
    {"prompt": "a large red heart on a white background", "box": (0.5, 0, 1, 1)},
]

pictures = {}
for title, where in {"ink nowhere": (), "on the left": (0,), "on both sides": (0, 1)}.items():
    parts = [
        part | {"conditions": {ink: 1.0}} if number in where else part
        for number, part in enumerate(halves)
    ]
    conditions = {regions: parts} if where else {regions: parts, ink: None}
    pictures[title] = model.generate("", conditions=conditions, **options)
