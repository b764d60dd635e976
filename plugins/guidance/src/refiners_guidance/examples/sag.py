"""SAG: lead away from blurred latents.

Self-attention guidance (arXiv:2210.00939) blurs the latents where the network looks, and leads away
from what it predicts for them. It acts without guidance by a prompt too.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"guidance": 1.0, "steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {"guidance 1": model.generate(prompt, **options)}

for strength in (0.75, 2.0):
    with refiners.load_adapter("sag", strength=strength).on(model):
        pictures[f"sag, strength {strength}"] = model.generate(prompt, **options)
