"""Compares a LoRA with diffusers and PEFT, on UNets of the official size that share their weights.

Run `python benchmarks/lora.py`. Peers take turns in one process, on one thread. It prints medians
and their ratios, and exits with 1 if a bar is missed. It takes 8 GB.
"""

import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from core import milliseconds, reported
from forward import pair
from refiners_lora.adapter import Lora

from refiners_core import Source
from refiners_core.models import sd15
from refiners_core.models.unet import UNET_KEYS, UNetConfig
from refiners_core.weights import load, read

RANK = 16
LAYERS = 128
"""Queries, keys, values and outputs of the 32 attentions of Stable Diffusion 1.5."""
ROWS, SIDE = 2, 16
"""The batch and the side of the latents of a forward."""


def loading(model: Any, theirs: Any, path: Path) -> bool:
    """Measures loading, injecting and ejecting, from the file and with its tensors in memory."""

    def load_file() -> None:
        theirs.load_lora_adapter(path.parent, weight_name=path.name, prefix="unet")
        theirs.unload_lora()

    from_file = {"diffusers": load_file, "ours": lambda: opened(path, "style", model).eject()}
    medians = milliseconds(from_file, 3)
    print(f"from the file: diffusers {medians['diffusers']:.1f} ms, ours {medians['ours']:.1f} ms")
    adapter, tensors = opened(path, "style", model), read(path)
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


def running(model: Any, theirs: Any, path: Path) -> list[bool]:
    """Measures one call of the UNet with the LoRA, swapping it for another, and merging it."""
    adapter, other = opened(path, "style", model), opened(path, "other", model).eject()
    theirs.load_lora_adapter(read(path), prefix="unet")
    latents, timestep = torch.randn(ROWS, 4, SIDE, SIDE), torch.tensor(500)
    text = torch.randn(ROWS, 77, UNetConfig().text_width)
    context = {"timestep": timestep, "text": text, adapter.scale_key: torch.tensor(1.0)}
    calls = {
        "diffusers": lambda: theirs(latents, timestep, text, return_dict=False)[0],
        "ours": lambda: model.unet(latents, context=dict(context)),
    }
    expected, output = (call() for call in calls.values())
    assert (output - expected).norm() / expected.norm() <= 1e-5
    forward = milliseconds(calls, 9)
    swap = milliseconds({"swap": lambda: adapter.hotswap(other)}, 41)["swap"]
    merging = milliseconds(
        {"diffusers": lambda: theirs.fuse_lora(), "ours": lambda: adapter.merge()},
        9,
        {"diffusers": lambda: theirs.unfuse_lora(), "ours": lambda: adapter.unmerge()},
    )
    print(f"forward: diffusers {forward['diffusers']:.0f} ms, ours {forward['ours']:.0f} ms")
    print(f"merging: diffusers {merging['diffusers']:.1f} ms, ours {merging['ours']:.1f} ms")
    size = f"rank {RANK}, {SIDE}x{SIDE}, batch {ROWS}"
    ratios = [median["ours"] / median["diffusers"] for median in (forward, merging)]
    return [
        reported(f"forward / diffusers' with PEFT, {size}", ratios[0], "", 0.98),
        reported("merge / fuse_lora", ratios[1], "", 0.5),
        reported("hotswap of two resident LoRAs", swap, "ms", 1),
    ]


def opened(path: Path, key: str, model: Any) -> Lora:
    """Returns the LoRA of a file, worn by a model."""
    return Lora(weights=lambda _: Source({"weights": path}), name="style", key=key).inject(model)


def main(folder: Path) -> bool:
    path = folder / "style.safetensors"
    theirs, _ = pair(UNetConfig())
    model = sd15.build(device="meta").to_empty(device="cpu")
    load(model.unet, theirs.state_dict(), UNET_KEYS)
    model.eval().requires_grad_(False)
    made = Lora(rank=RANK).inject(model)
    for weight in made.parameters():
        weight.normal_(std=0.02)
    made.save(path)
    made.eject()
    return all([loading(model, theirs, path), *running(model, theirs, path)])


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that no measured call pays for traversing imported modules
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        kept = main(Path(place))
    raise SystemExit(0 if kept else 1)
