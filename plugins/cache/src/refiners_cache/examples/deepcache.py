"""DeepCache: run the deep levels at every third call alone.

What lies inside one skip connection changes little from step to step (arXiv:2312.00858). `interval`
tells of how many calls one is full.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 20, "seed": 7, "progress": False}
pictures = {"20 full calls": model.generate(prompt, **options)}

for interval, full in ((3, 7), (5, 4)):
    with refiners.load_adapter("deepcache", interval=interval).on(model):
        image = model.generate(prompt, **options)
    pictures[f"interval {interval}: {full} full calls"] = image
