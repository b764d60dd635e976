"""TCFG: take the misleading part out of the unguided prediction.

The unguided prediction is projected on what it shares with the guided one (arXiv:2503.18137).
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"guidance": 25.0, "steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {"guidance 25": model.generate(prompt, **options)}

with refiners.load_adapter("tcfg").on(model):
    pictures["tcfg"] = model.generate(prompt, **options)
