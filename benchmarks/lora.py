"""Compares injecting a LoRA file with diffusers and PEFT, on UNets of the official size.

Run `python benchmarks/lora.py`. Peers take turns in one process, on one thread. It prints medians
and their ratio, and exits with 1 if the bar is missed. The UNets are never called, so their 7 GB of
weights are not touched.
"""

import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from core import milliseconds, reported
from diffusers import UNet2DConditionModel
from refiners_lora.adapter import Lora

from refiners_core import Source
from refiners_core.models import sd15
from refiners_core.models.formats.diffusers_config import of_unet
from refiners_core.weights import read

RANK = 16
LAYERS = 128
"""Queries, keys, values and outputs of the 32 attentions of Stable Diffusion 1.5."""


def main(folder: Path) -> bool:
    path = folder / "style.safetensors"
    model = sd15.build(device="meta").to_empty(device="cpu")
    untrained = Lora(rank=RANK).inject(model)
    untrained.save(path)
    untrained.eject()
    with torch.device("meta"):
        theirs: Any = UNet2DConditionModel(**of_unet(model.unet.config))
    theirs = theirs.to_empty(device="cpu")

    def opened() -> Lora:
        return Lora(weights=lambda _: Source({"weights": path}), name="style").inject(model)

    def load_file() -> None:
        theirs.load_lora_adapter(folder, weight_name=path.name, prefix="unet")
        theirs.unload_lora()

    from_file = {"diffusers": load_file, "ours": lambda: opened().eject()}
    medians = milliseconds(from_file, 3)
    print(f"from the file: diffusers {medians['diffusers']:.1f} ms, ours {medians['ours']:.1f} ms")

    adapter, tensors = opened(), read(path)
    assert len(adapter.published()) == 2 * LAYERS
    adapter.eject()

    def load_and_unload() -> None:
        theirs.load_lora_adapter(dict(tensors), prefix="unet")
        theirs.unload_lora()

    calls = {"diffusers": load_and_unload, "ours": lambda: adapter.inject(model).eject()}
    medians = milliseconds(calls, 7)
    print(f"in memory: diffusers {medians['diffusers']:.1f} ms, ours {medians['ours']:.2f} ms")
    ratio = medians["ours"] / medians["diffusers"]
    return reported(f"inject + eject / diffusers' load + unload, {LAYERS} layers", ratio, "", 0.05)


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    with tempfile.TemporaryDirectory() as place:
        kept = main(Path(place))
    raise SystemExit(0 if kept else 1)
