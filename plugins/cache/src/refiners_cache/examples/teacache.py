"""TeaCache: skip the network until changes add up.

The changes of the input are summed (arXiv:2411.19108); below the threshold, what the network added
last time is added again.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 20, "seed": 7, "progress": False}
pictures = {"without": model.generate(prompt, **options)}

for threshold in (0.1, 0.2, 0.6):
    with refiners.load_adapter("teacache", threshold=threshold).on(model):
        pictures[f"threshold {threshold}"] = model.generate(prompt, **options)
