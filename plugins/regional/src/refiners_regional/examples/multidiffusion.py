"""MultiDiffusion: a large picture from windows that overlap.

The network predicts in windows of the size that it knows, and the mean of all windows is one step
(arXiv:2302.08113). `circular` joins the left edge and the right one.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a red heart on a white background"
options = {"size": (256, 64), "steps": 10, "seed": 7, "progress": False}
panoramas = [model.generate(prompt, **options)]

for circular in (False, True):
    with refiners.load_adapter("multidiffusion", stride=32, circular=circular).on(model):
        panoramas.append(model.generate(prompt, **options))
pictures = {"at once; in windows; in windows around the edge": panoramas}
