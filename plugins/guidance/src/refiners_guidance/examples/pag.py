"""PAG: lead away from a pass without self-attention.

A third pass, in which tokens of the middle see themselves alone, has worse structure; perturbed
attention guidance (arXiv:2403.17377) leads away from it, with or without a prompt.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
prompt = "a green ring on a pink background"
options = {"guidance": 1.0, "steps": 12, "seed": 7, "progress": False}
pictures = {"guidance 1": model.generate(prompt, **options)}

pag = refiners.load_adapter("pag", model, layers=["mid", "up"])
for scale in (0.5, 1.0):
    conditions = {pag: Condition(scale=scale)}
    pictures[f"pag, scale {scale}"] = model.generate(prompt, conditions=conditions, **options)
