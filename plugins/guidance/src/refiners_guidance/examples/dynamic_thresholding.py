"""Dynamic thresholding: strong guidance in the range of weaker guidance.

The guided prediction is brought to the range that it would have with the scale `mimic`
(arXiv:2205.11487, section 2.3, as user interfaces apply it to latents).
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {f"guidance {g:g}": model.generate(prompt, guidance=g, **options) for g in (5.0, 12.0)}

for mimic in (7.0, 3.0):
    with refiners.load_adapter("dynamic-thresholding", mimic=mimic).on(model):
        image = model.generate(prompt, guidance=12.0, **options)
    pictures[f"12 in the range of {mimic:g}"] = image
