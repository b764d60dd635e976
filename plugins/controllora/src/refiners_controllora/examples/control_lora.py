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
seen = model.generate("a large star", seed=3, steps=12, progress=False)
edges = refiners.load_preprocessor("canny")(seen)
pictures = {"edges": edges, "a heart": model.generate("a heart", **options)}

playground = find_spec("refiners_playground").submodule_search_locations[0]
source = Path(playground, "weights", "controlnet.safetensors")
for rank in (4, 16):
    with TemporaryDirectory() as folder:
        path = Path(folder, "edges.safetensors")
        extract(source, model, rank, path)
        adapter = refiners.load_adapter("control-lora", model, file=path)
    image = model.generate("a heart", conditions={adapter: edges}, **options)
    pictures[f"a heart, rank {rank}"] = image
    adapter.eject()
