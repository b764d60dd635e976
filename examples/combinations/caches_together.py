"""Two caches at once.

DeepCache leaves deep levels out, T-GATE attention to the text and the pass without the prompt. Both
keep what an IP-Adapter does.
"""

import refiners

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 20, "progress": False}
seen = model.generate("a large yellow heart on a purple background", **options)
photo = refiners.load_adapter("ip-adapter", model)
deep = refiners.load_adapter("deepcache", model, interval=3)
gate = refiners.load_adapter("t-gate", model, gate_step=10, sp_interval=1)

pictures = {"picture": seen}
for title, conditions in {
    "every step in full": {photo: seen, deep: None, gate: None},
    "DeepCache": {photo: seen, gate: None},
    "DeepCache and T-GATE": {photo: seen},
}.items():
    pictures[title] = model.generate("a star", conditions=conditions, **options)
