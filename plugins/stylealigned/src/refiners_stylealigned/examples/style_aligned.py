"""StyleAligned: one style for all pictures of a batch.

In every self-attention the other pictures also look at the first one (arXiv:2312.02133). Only the
first prompt names a background; the others take it.
"""

import refiners

model = refiners.load_model("playground")
prompts = ["a red heart on a yellow background", "a star", "a circle"]
options = {"seed": 7, "steps": 12, "progress": False}
apart = model.generate(prompts, **options)

with refiners.load_adapter("style-aligned", shift=1.0).on(model):
    aligned = model.generate(prompts, **options)
pairs = zip(prompts, apart, aligned, strict=True)
pictures = {f"{prompt}: apart, aligned": [*pair] for prompt, *pair in pairs}
