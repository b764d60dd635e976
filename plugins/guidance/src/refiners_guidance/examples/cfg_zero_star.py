"""CFG-Zero*: scale the unguided prediction to its best length.

The unguided prediction is multiplied by the number that brings it closest to the guided one
(arXiv:2503.18886), so that guidance corrects directions and not lengths.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"guidance": 25.0, "steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {"guidance 25": model.generate(prompt, **options)}

with refiners.load_adapter("cfg-zero-star").on(model):
    pictures["cfg-zero-star"] = model.generate(prompt, **options)
