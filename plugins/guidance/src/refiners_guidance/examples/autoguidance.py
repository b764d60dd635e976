"""Autoguidance: lead away from a weaker model.

The difference between a model and a worse one points to what the worse one lacks
(arXiv:2406.02507). In earnest the weaker model is smaller or less trained.
"""

import refiners
import torch

model = refiners.load_model("playground")
prompt = "a green ring on a pink background"
options = {"guidance": 1.0, "steps": 12, "seed": 7, "progress": False}
pictures = {"guidance 1": model.generate(prompt, **options)}

# %%
# This one has noise on its weights, which is weaker as well.

weak = refiners.load_model("playground")
source = torch.Generator().manual_seed(0)
with torch.no_grad():
    for weight in weak.unet.parameters():
        weight += 0.15 * weight.std(correction=0) * torch.randn(weight.shape, generator=source)
pictures["the weaker model"] = weak.generate(prompt, **options)

with refiners.load_adapter("autoguidance", weak=weak, strength=2.0).on(model):
    pictures["autoguidance, strength 2"] = model.generate(prompt, **options)
