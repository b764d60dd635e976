"""First-block cache: run the other blocks if the first one has changed.

The change of the first block decides whether all others are computed or what they added last time
is added again. The threshold is the trade of time for likeness.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 20, "seed": 7, "progress": False}
pictures = {"without": model.generate(prompt, **options)}

for threshold in (0.08, 0.2, 0.5):
    with refiners.load_adapter("first-block-cache", threshold=threshold).on(model):
        pictures[f"threshold {threshold}"] = model.generate(prompt, **options)
