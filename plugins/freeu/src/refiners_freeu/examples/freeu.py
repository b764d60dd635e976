"""FreeU: a stronger backbone and calmer skips.

Where the way up of the UNet joins a skip connection, FreeU (arXiv:2309.11497) scales the backbone
up and the lowest frequencies of the skip down. Nothing is trained.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 12, "seed": 7, "progress": False}
pictures = {"without": model.generate(prompt, **options)}

# %%
# The scale goes from 0, where nothing changes, to 1, the factors of the paper. Other factors are
# options.

freeu = refiners.load_adapter("freeu", model)
half = {freeu: Condition(scale=0.5)}
pictures["freeu, scale 0.5"] = model.generate(prompt, conditions=half, **options)
pictures["freeu"] = model.generate(prompt, **options)
freeu.eject()

with refiners.load_adapter("freeu", b1=2.0, b2=2.5).on(model):
    pictures["b1=2, b2=2.5"] = model.generate(prompt, **options)
