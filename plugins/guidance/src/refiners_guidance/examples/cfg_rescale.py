"""CFG rescale: take contrast back that guidance adds.

Guidance widens the range of a prediction. Rescaling (arXiv:2305.08891, section 3.4) gives it the
spread of the prediction with the prompt.
"""

import refiners

from refiners_core import Condition

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"guidance": 25.0, "steps": 12, "seed": 7, "sampler": "ddim", "progress": False}
pictures = {"guidance 25": model.generate(prompt, **options)}

rescale = refiners.load_adapter("cfg-rescale", model, strength=1.0)
for scale in (0.5, 0.7, 1.0):
    conditions = {rescale: Condition(scale=scale)}
    pictures[f"rescaled by {scale}"] = model.generate(prompt, conditions=conditions, **options)
