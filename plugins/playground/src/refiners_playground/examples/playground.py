"""The playground: a model to try things on.

A miniature of Stable Diffusion 1.5 for drawn scenes. It comes in its wheel, and runs on any
machine in seconds.
"""

import refiners

model = refiners.load_model("playground")
prompts = [
    "a yellow star on a blue background",
    "a small red circle on a white background",
    "a striped green ring on a black background",
    "a purple cross left of a pink square",
]
made = model.generate(prompts, seed=7, steps=12, progress=False)
pictures = dict(zip(prompts, made, strict=True))
