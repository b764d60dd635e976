"""Regional prompts: parts of a picture with prompts of their own.

Two things in one prompt exchange their colours. As regions, each half has its own prompt
(arXiv:2302.08113, section 4.2): in two passes of the network, or in attention alone.
"""

import refiners

model = refiners.load_model("playground")
options = {"size": (128, 64), "steps": 12, "seed": 1, "progress": False}
both = "a yellow star left of a red heart"
made = [model.generate(both, **options)]

regions = [
    {"prompt": "a large yellow star on a blue background", "box": (0, 0, 0.5, 1)},
    {"prompt": "a large red heart on a white background", "box": (0.5, 0, 1, 1)},
]
for mode in ("latents", "attention"):
    with refiners.load_adapter("regional-prompts", mode=mode).on(model) as adapter:
        made.append(model.generate("", conditions={adapter: regions}, **options))
titles = (both, "regions, latents", "regions, attention")
pictures = dict(zip(titles, made, strict=True))
