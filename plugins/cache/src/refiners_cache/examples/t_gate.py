"""T-GATE: keep attention to the text from a step on.

Once a picture has taken shape, attention to the text hardly changes (arXiv:2404.02747): after the
gate its outputs are reused, and the pass without the prompt is left out.
"""

import refiners

model = refiners.load_model("playground")
prompt = "a yellow star on a blue background"
options = {"steps": 20, "seed": 7, "progress": False}
pictures = {"without": model.generate(prompt, **options)}

for gate in (12, 6, 2):
    with refiners.load_adapter("t-gate", gate_step=gate, sp_interval=1).on(model):
        pictures[f"gate at step {gate}"] = model.generate(prompt, **options)
