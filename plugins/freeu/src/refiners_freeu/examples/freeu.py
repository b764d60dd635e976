"""FreeU: a stronger backbone, calmer skips

FreeU (arXiv:2309.11497) needs no training: where the way up of the UNet joins a skip connection, it
scales the backbone up and the lowest frequencies of the skip down.
"""

# %%
# The scale of a condition goes from 0, where nothing changes, to 1, the factors of the paper. Other
# factors are options.

import refiners
from refiners_core import Condition

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 20, "seed": 7, "progress": False}
pictures = {"without": model.generate(prompt, **options)}

freeu = refiners.load_adapter("freeu", model)
for scale in (0.5, 1.0):
    conditions = {freeu: Condition(scale=scale)}
    image = model.generate(prompt, conditions=conditions, **options)
    pictures[f"freeu, scale {scale}"] = image
freeu.eject()

with refiners.load_adapter("freeu", b1=2.0, b2=2.5).on(model):
    pictures["b1=2, b2=2.5"] = model.generate(prompt, **options)
