"""How long a UNet takes from its file to being ready, and how much memory beside the file.

Run `python benchmarks/load.py`. Files of official sizes are made in a temporary folder, with zeros
for weights. Ours, diffusers and the floor (construction without weights, memory map, assignment)
take turns, each in a process of its own that has imported all it needs and loaded once before. It
prints medians and ratios, and ends with 1 if a bar is missed.

finegrain's refiners, which has our import name, joins in where it is told from where:
`pip install --no-deps --target FOLDER refiners==0.4.0`, then `--finegrain FOLDER`.
"""

import argparse
import gc
import json
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

KINDS = ("ours", "diffusers", "floor")
MOST_OVER_FLOOR = 1.15
MOST_OVER_DIFFUSERS = {"sd15": 1.0, "sdxl": 0.7}
MOST_OVER_FINEGRAIN = 0.03
MOST_ANONYMOUS = 20.0
LOADS = 7
"""How many loads of a process are timed."""
WEIGHTS, THEIRS = "diffusion_pytorch_model.safetensors", "finegrain.safetensors"


def settings(name: str) -> dict[str, Any]:
    """The official configuration, as it is published."""
    from refiners_core.models import sdxl
    from refiners_core.models.setting import of_unet
    from refiners_core.models.unet import UNetConfig

    said = of_unet(sdxl.UNET if name == "sdxl" else UNetConfig())
    return said | {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1"}


def publish(name: str, folder: Path) -> None:
    """Writes `config.json` and a file of zeros with the official names and shapes."""
    import torch

    from refiners_core import weights
    from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

    config = settings(name)
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        tree = UNet(UNetConfig.from_json(config))
    write_zeros(folder / WEIGHTS, weights.published(tree, UNET_KEYS).items(), name == "sdxl")


def write_zeros(path: Path, tensors: Iterable[tuple[str, Any]], is_half: bool) -> None:
    """Writes a safetensors file of zeros, which takes no place on the disk."""
    kind, size = ("F16", 2) if is_half else ("F32", 4)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, tensor in tensors:
        begin, end = end, end + tensor.numel() * size
        header[key] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def loader(kind: str, folder: Path) -> Callable[[], Any]:
    """Returns what loads the UNet of a folder, all imports done."""
    import torch

    from refiners_core import weights
    from refiners_core.models.device import built_on
    from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

    file = folder / WEIGHTS

    def built() -> Any:
        with built_on("meta"):
            return UNet(UNetConfig.from_json(json.loads((folder / "config.json").read_text())))

    if kind == "ours":
        return lambda: weights.load(built(), file, UNET_KEYS)
    if kind == "diffusers":
        from diffusers import UNet2DConditionModel

        dtype = torch.float16 if "sdxl" in folder.name else torch.float32
        return lambda: UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype)

    from safetensors import safe_open

    names = {path: UNET_KEYS.published(path) for path in built().state_dict()}

    def floor() -> Any:
        tree = built()
        with safe_open(file, framework="pt") as opened:
            for path, layer in tree.named_modules():
                for name, value in layer._parameters.items():
                    if value is not None:
                        key = names[f"{path}.{name}"]
                        layer._parameters[name] = torch.nn.Parameter(opened.get_tensor(key))
        return tree

    return floor


def finegrain(package: str, folder: Path) -> Callable[[], Any]:
    """Returns what loads the UNet of a folder as finegrain's refiners does."""
    sys.path.insert(0, package)
    import torch
    from refiners.foundationals.latent_diffusion import SD1UNet, SDXLUNet  # pyright: ignore

    is_half = "sdxl" in folder.name
    kind: Any = SDXLUNet if is_half else SD1UNet
    dtype = torch.float16 if is_half else torch.float32
    file = folder / THEIRS
    if not file.exists():
        named = kind(4, device="meta", dtype=dtype).state_dict()
        write_zeros(file, named.items(), is_half)
    return lambda: kind(4, dtype=dtype).load_from_safetensors(file)


def anonymous() -> float:
    """Memory of this process that no file backs, in MB."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Anonymous:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")


def measure(load: Callable[[], Any], loads: int) -> tuple[float, float]:
    """Returns the median seconds of loads after a first one, and the megabytes of the second."""
    seconds: list[float] = []
    trees, grown = [load()], 0.0  # kept: what it frees would be used again, and not be counted
    for _ in range(loads):
        gc.collect()  # nobody else's rubbish is cleared on our time
        before = anonymous()
        begun = time.perf_counter()
        trees.append(load())
        seconds.append(time.perf_counter() - begun)
        grown = grown or anonymous() - before
        assert not next(trees[-1].parameters()).is_meta
        trees.clear()
    return statistics.median(seconds), grown


def compare(name: str, rounds: int, package: str | None) -> bool:
    """Prints the figures of a model; returns whether all bars are met."""
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix=f"refiners-{name}-") as folder:
        publish(name, Path(folder))
        turns = [*KINDS * rounds, *(["finegrain"] if package else [])]
        for kind in turns:
            command = [sys.executable, __file__, "--child", kind, folder]
            command += ["--finegrain", package] if package else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.setdefault(kind, []).append(tuple(json.loads(done.stdout.splitlines()[-1])))
    seconds = {kind: statistics.median(s for s, _ in pairs) for kind, pairs in found.items()}
    megabytes = {kind: statistics.median(m for _, m in pairs) for kind, pairs in found.items()}
    for kind in found:
        print(f"{name:<5} {kind:<10} {seconds[kind]:7.3f} s {megabytes[kind]:7.1f} MB anonymous")
    bars = [
        ("over the floor", seconds["ours"] / seconds["floor"], MOST_OVER_FLOOR),
        ("over diffusers", seconds["ours"] / seconds["diffusers"], MOST_OVER_DIFFUSERS[name]),
        ("anonymous MB", megabytes["ours"], MOST_ANONYMOUS),
    ]
    if package:
        over = seconds["ours"] / seconds["finegrain"]
        bars.append(("over finegrain", over, MOST_OVER_FINEGRAIN))
    for what, value, bar in bars:
        verdict = "ok" if value <= bar else "MISSED"
        print(f"{name:<5} {what:<18} {value:8.3f} bar {bar:6.2f} {verdict}")
    return all(value <= bar for _, value, bar in bars)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["sd15", "sdxl"])
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--finegrain", metavar="FOLDER", help="where finegrain's refiners is")
    asked = parser.parse_args()
    if asked.child:
        kind, folder = asked.child[0], Path(asked.child[1])
        is_slow = kind == "finegrain"
        load = finegrain(asked.finegrain, folder) if is_slow else loader(kind, folder)
        print(json.dumps(measure(load, 1 if is_slow else LOADS)))
        return 0
    met = [compare(name, asked.rounds, asked.finegrain) for name in asked.models]
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
