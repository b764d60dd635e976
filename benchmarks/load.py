"""Compares the time and memory of loading a UNet from its file with diffusers.

Run `python benchmarks/load.py`. Files of official sizes, with zeros as weights, are written to a
temporary folder. Ours, diffusers and the floor (construction without weights, memory map,
assignment) take turns in one process, after a warm-up of each. Memory is measured in a process for
each. It prints medians and ratios, and exits with 1 if a bar is missed.

finegrain's refiners, which has our import name, can be measured once in a separate process:
`pip install --no-deps --target FOLDER refiners==0.4.0`, then `--finegrain FOLDER`.
"""

import argparse
import gc
import json
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
WEIGHTS, THEIRS = "diffusion_pytorch_model.safetensors", "finegrain.safetensors"


def settings(name: str) -> dict[str, Any]:
    """Returns the official configuration as it is published."""
    from refiners_core.models import sdxl
    from refiners_core.models.formats.diffusers_config import of_unet
    from refiners_core.models.unet import UNetConfig

    config = of_unet(sdxl.UNET if name == "sdxl" else UNetConfig())
    return config | {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1"}


def publish(name: str, folder: Path) -> None:
    """Writes `config.json` and a file of zeros with the official keys and shapes."""
    import torch

    from refiners_core import weights
    from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

    config = settings(name)
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        tree = UNet(UNetConfig.from_json(config))
    write_zeros(folder / WEIGHTS, weights.published(tree, UNET_KEYS).items(), name == "sdxl")


def write_zeros(path: Path, tensors: Iterable[tuple[str, Any]], is_half: bool) -> None:
    """Writes a sparse safetensors file of zeros, which takes no space on the disk."""
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
    """Returns a function that loads the UNet of a folder, with all imports done."""
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
    """Returns a function that loads the UNet of a folder with finegrain's refiners."""
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
    """Returns the memory of this process that no file backs, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def race(loads: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of loads that take turns, after a warm-up of each."""
    seconds: dict[str, list[float]] = {kind: [] for kind in loads}
    for _ in range(rounds + 1):
        for kind, load in loads.items():
            gc.collect()  # so that no load pays for collecting another's garbage
            start = time.perf_counter()
            tree = load()
            seconds[kind].append(time.perf_counter() - start)
            assert not next(tree.parameters()).is_meta
            del tree
    return {kind: statistics.median(samples[1:]) for kind, samples in seconds.items()}


def grown(load: Callable[[], Any]) -> float:
    """Returns the megabytes that a second load adds while the first tree is alive."""
    trees, before = [load()], anonymous()
    trees.append(load())
    return anonymous() - before


def child(*arguments: str) -> Any:
    """Runs the current script in a new process and returns its measurement."""
    command = [sys.executable, sys.argv[0], "--child", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def compare(name: str, rounds: int, package: str | None) -> bool:
    """Prints the figures of a model; returns whether all bars are met."""
    with tempfile.TemporaryDirectory(prefix=f"refiners-{name}-") as folder:
        publish(name, Path(folder))
        seconds: dict[str, float] = child("race", folder, str(rounds))
        megabytes: dict[str, float] = {kind: child(kind, folder) for kind in KINDS}
        if package:
            seconds["finegrain"], megabytes["finegrain"] = child("finegrain", folder, package)
    for kind in seconds:
        print(f"{name:<5} {kind:<10} {seconds[kind]:7.3f} s {megabytes[kind]:7.1f} MB anonymous")
    bars = [
        ("over the floor", seconds["ours"] / seconds["floor"], MOST_OVER_FLOOR),
        ("over diffusers", seconds["ours"] / seconds["diffusers"], MOST_OVER_DIFFUSERS[name]),
        ("anonymous MB", megabytes["ours"], MOST_ANONYMOUS),
    ]
    if package:
        over = seconds["ours"] / seconds["finegrain"]
        bars.append(("over finegrain", over, MOST_OVER_FINEGRAIN))
    for title, value, bar in bars:
        verdict = "ok" if value <= bar else "MISSED"
        print(f"{name:<5} {title:<18} {value:8.3f} bar {bar:6.2f} {verdict}")
    return all(value <= bar for _, value, bar in bars)


def answer(kind: str, folder: str, *more: str) -> Any:
    """Takes a measurement in a child process."""
    place = Path(folder)
    if kind == "race":
        return race({name: loader(name, place) for name in KINDS}, int(more[0]))
    if kind == "finegrain":
        load = finegrain(more[0], place)
        before, start = anonymous(), time.perf_counter()
        tree = load()
        seconds = time.perf_counter() - start
        assert not next(tree.parameters()).is_meta
        return seconds, anonymous() - before
    return grown(loader(kind, place))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="+", default=["sd15", "sdxl"])
    parser.add_argument("--finegrain", metavar="FOLDER", help="the folder of finegrain's refiners")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(answer(*options.child)))
        return 0
    met = [compare(name, options.rounds, options.finegrain) for name in options.models]
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
