"""CFG++: guidance with a scale below 1.

CFG++ (arXiv:2406.08070) renews the noise of a step from the unguided prediction, so that a picture
stays where the model knows pictures. Its `strength` replaces the scale of guidance.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {f"guidance {g:g}": model.generate(prompt, guidance=g, **options) for g in (5.0, 25.0)}

for strength in (0.6, 0.9):
    with refiners.load_adapter("cfg-plus-plus", strength=strength).on(model):
        image = model.generate(prompt, guidance=25.0, **options)
    pictures[f"cfg-plus-plus, strength {strength}"] = image
