"""Textual inversion: teach prompts a word.

A file holds the vectors of a word (arXiv:2208.01618). This one is made here: `<toy>` gets the
vector of "star", which a trained file would have learned from pictures.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import refiners

from refiners_core import Condition
from refiners_core.weights import write

model = refiners.load_model("playground")
(token,) = model.tokenizer.tokens("star")
vector = model.text_encoder.state_dict()["embed.token.weight"][token].clone()

with TemporaryDirectory() as folder:
    path = Path(folder, "toy.safetensors")
    write({"<toy>": vector[None]}, path)
    toy = refiners.load_adapter("textual-inversion", model, file=path)

pictures = {}
for scale in (0.0, 0.5, 1.0):
    conditions = {toy: Condition(scale=scale)}
    image = model.generate("a red <toy>", conditions=conditions, seed=7, steps=12, progress=False)
    pictures[f"a red <toy>, scale {scale}"] = image
