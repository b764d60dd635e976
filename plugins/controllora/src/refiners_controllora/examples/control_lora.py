"""Control-LoRA: a ControlNet as a low-rank change of the base.

Most of a ControlNet is the base model once more. `extract` keeps the difference at a small rank, in
the layout of Stability AI's files.
"""

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import refiners
from refiners_controllora.extract import extract

model = refiners.load_model("playground")
options = {"seed": 7, "steps": 12, "progress": False}
seen = model.generate("a heart on a white background", **options).rotate(30, fillcolor="white")
edges = refiners.load_preprocessor("canny")(seen)
pictures = {
    "edges": edges,
    "a red heart": model.generate("a red heart on a yellow background", **options),
}

playground = find_spec("refiners_playground").submodule_search_locations[0]
source = Path(playground, "weights", "controlnet.safetensors")
for rank in (4, 16):
    with TemporaryDirectory() as folder:
        path = Path(folder, "edges.safetensors")
        extract(source, model, rank, path)
        adapter = refiners.load_adapter("control-lora", model, file=path)
    image = model.generate(
        "a red heart on a yellow background", conditions={adapter: edges}, **options
    )
    pictures[f"a red heart, rank {rank}"] = image
    adapter.eject()
