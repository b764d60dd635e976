"""One style by several methods, a new shape, a new word, and fewer steps.

DoRA, LoHa and LoKr learnt to draw in ink; a LoRA learnt a shape that the model never saw, textual
inversion the look of a word, and a latent consistency LoRA to draw in four steps.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
pictures = {}
for title, adapter, text in (
    ("DoRA", refiners.load_adapter("dora-ink"), prompt),
    ("LoHa", refiners.load_adapter("loha-ink"), prompt),
    ("LoKr", refiners.load_adapter("lokr-ink"), prompt),
    ("a crescent", refiners.load_adapter("lora-crescent"), "a red crescent on a white background"),
    ("<harlequin>", refiners.load_adapter("harlequin"), "a <harlequin> circle"),
):
    with adapter.on(model):
        pictures[title] = model.generate(text, seed=7, steps=12, progress=False)

fast = refiners.load_adapter("lcm-lora", model)
pictures["LCM, 4 steps"] = model.generate(prompt, conditions={fast: None}, seed=7, progress=False)
