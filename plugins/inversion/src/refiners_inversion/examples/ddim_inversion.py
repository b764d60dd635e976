"""DDIM inversion: begin from the noise that leads to a picture.

DDIM's step, walked backwards (arXiv:2010.02502, section 4.3), turns a picture to noise. The same
prompt leads back to the picture; another one edits it.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a large red heart on a white background"
seen = model.generate(prompt, seed=3, steps=12, progress=False)

inversion = refiners.load_adapter("ddim-inversion", model)
conditions = {inversion: {"picture": seen, "prompt": prompt}}
options = {"conditions": conditions, "steps": 20, "progress": False}
pictures = {
    "picture": seen,
    "made again": model.generate(prompt, guidance=1.0, **options),
    "edited: a blue heart": model.generate(prompt.replace("red", "blue"), **options),
}
