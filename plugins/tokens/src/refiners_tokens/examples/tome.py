"""ToMe: merge similar tokens before self-attention.

Token merging (arXiv:2303.17604) gives a few tokens to attention and hands each result to its group.
`ratio` is the share that is merged: it saves time on large pictures.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a green ring on a white background"
options = {"steps": 12, "seed": 7, "progress": False}
pictures = {"all tokens": model.generate(prompt, **options)}

for ratio in (0.25, 0.5, 0.75):
    with refiners.load_adapter("tome", ratio=ratio).on(model):
        pictures[f"ratio {ratio}"] = model.generate(prompt, **options)
