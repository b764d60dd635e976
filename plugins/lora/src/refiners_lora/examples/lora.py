"""A LoRA from a file.

Any file of LoRA weights finds its adapter by its header. This one is made here, from the ink of the
playground, as a file that you have would be.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import refiners

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
prompt = "a red heart on a yellow background"
pictures = {"without": model.generate(prompt, **options)}

with TemporaryDirectory() as folder:
    path = Path(folder, "style.safetensors")
    refiners.load_adapter("lora-ink", model).save(path)
    model.eject_all()
    style = refiners.load_adapter("lora", model, file=path)
pictures["style.safetensors"] = model.generate(prompt, **options)
