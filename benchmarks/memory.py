"""Measures the memory to decode a picture of 1024x1024, and to cast weights while loading.

Run `python benchmarks/memory.py`. The networks are SDXL's autoencoder and Stable Diffusion 1.5's
UNet, with zeros as weights. Each figure is the peak of memory that no file backs, minus the memory
before, in a separate process. It exits with 1 if a bar is missed.
"""

import argparse
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import WEIGHTS, anonymous, child, publish

MOST_TILED = 1300.0
"""The figure in the documentation of `AutoencoderKL`, in MB."""
MOST_OVER_ONE_COPY = 20.0


class Peak(threading.Thread):
    """Samples the memory of this process a thousand times a second within a `with` block.

    `megabytes` is the difference between the highest sample and the first, before the block.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = anonymous()
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.001):
            self.most = max(self.most, anonymous())

    def __enter__(self) -> "Peak":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.most = max(self.most, anonymous())
        self.is_over.set()
        self.join()

    @property
    def megabytes(self) -> float:
        return self.most - self.before


def decoding(is_tiled: bool) -> float:
    """Returns the megabytes that decoding takes, including the picture itself, 12 MB."""
    import torch

    from refiners_core.models import sdxl
    from refiners_core.models.vae import AutoencoderKL, Tiling

    model = AutoencoderKL(sdxl.AUTOENCODER).eval().requires_grad_(False)
    if is_tiled:
        model.tiling = Tiling()
    model.decode(torch.zeros(1, 4, 8, 8))
    latents = torch.randn(1, 4, 128, 128)
    with Peak() as peak:
        pixels = model.decode(latents)
    assert pixels.shape == (1, 3, 1024, 1024)
    return peak.megabytes


def casting(folder: str) -> tuple[float, float]:
    """Returns the megabytes to load a file of float32 as float16, and of one copy in float16."""
    import torch

    from refiners_core import weights
    from refiners_core.models.device import built_on
    from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig

    def build() -> UNet:
        with built_on("meta"):
            return UNet(UNetConfig())

    tree = build()
    with Peak() as peak:
        weights.load(tree, Path(folder) / WEIGHTS, UNET_KEYS, dtype=torch.float16)
    return peak.megabytes, sum(weight.nbytes for weight in tree.parameters()) / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    measured: dict[str, Callable[..., Any]] = {
        "whole": lambda: decoding(False),
        "tiled": lambda: decoding(True),
        "casting": casting,
    }
    if options.child:
        kind, *more = options.child
        print(json.dumps(measured[kind](*more)))
        return 0
    whole, tiled = child("whole"), child("tiled")
    with tempfile.TemporaryDirectory(prefix="refiners-") as folder:
        publish("sd15", Path(folder))
        taken, copy = child("casting", folder)
    print(f"decode 1024x1024, whole    {whole:8.0f} MB")
    met = True
    for title, value, bar in (
        ("decode 1024x1024, Tiling()", tiled, MOST_TILED),
        (f"cast while loading, beyond {copy:.0f} MB", taken - copy, MOST_OVER_ONE_COPY),
    ):
        met &= value <= bar
        print(f"{title:<36} {value:8.0f} MB bar {bar:5.0f} {'ok' if value <= bar else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
