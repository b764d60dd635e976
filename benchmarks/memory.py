"""How much memory it takes to decode a picture of 1024x1024, and to cast weights while loading.

Run `python benchmarks/memory.py`. Sizes are those of SDXL's autoencoder and of Stable Diffusion
1.5's UNet, weights are zeros. Each figure is the peak of memory that no file backs, beside what
there was before, in a process of its own. It ends with 1 if a bar is missed.
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
"""What the documentation of `AutoencoderKL` states, in MB."""
MOST_OVER_ONE_COPY = 20.0


class Peak(threading.Thread):
    """Looks at this process's memory, a thousand times a second, for the length of a `with` block.

    The first look is before, `megabytes` is how far the highest one is above it.
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
    """Returns what decoding takes; the picture itself, 12 MB, is in it."""
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
    """Returns what loading a file of float32 as float16 takes, and what one copy in float16 is."""
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
    return peak.megabytes, sum(it.nbytes for it in tree.parameters()) / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    measured: dict[str, Callable[..., Any]] = {
        "whole": lambda: decoding(False),
        "tiled": lambda: decoding(True),
        "casting": casting,
    }
    if asked.child:
        kind, *more = asked.child
        print(json.dumps(measured[kind](*more)))
        return 0
    whole, tiled = child("whole"), child("tiled")
    with tempfile.TemporaryDirectory(prefix="refiners-") as folder:
        publish("sd15", Path(folder))
        taken, copy = child("casting", folder)
    print(f"decode 1024x1024, whole    {whole:8.0f} MB")
    met = True
    for what, value, bar in (
        ("decode 1024x1024, Tiling()", tiled, MOST_TILED),
        (f"cast while loading, beyond {copy:.0f} MB", taken - copy, MOST_OVER_ONE_COPY),
    ):
        met &= value <= bar
        print(f"{what:<36} {value:8.0f} MB bar {bar:5.0f} {'ok' if value <= bar else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
