"""Compares one call of a UNet with diffusers' UNet of the same weights.

Run `python benchmarks/forward.py`. Both take turns in one process, on one thread, and take turns at
being first. It prints medians and their ratios, and exits with 1 if a bar is missed. At the end it
compares our convolution of small maps, a matrix product, with torch's. `--small` skips the official
size, which takes 3.5 GB and minutes.
"""

import argparse
from itertools import cycle
from typing import Any, NamedTuple

import torch
from core import milliseconds
from diffusers import UNet2DConditionModel
from torch import nn

from refiners_core.layers.convolution import Convolution
from refiners_core.models.formats.diffusers_config import of_unet
from refiners_core.models.unet import UNET_KEYS, UNet, UNetConfig
from refiners_core.weights import load

SMALL = UNetConfig(channels=(32,) * 4, heads=(4,) * 4, text_width=32, groups=16)


class Case(NamedTuple):
    """The UNet and inputs of a comparison, and its bar: the largest share of diffusers' time."""

    name: str
    config: UNetConfig
    rows: int
    side: int
    rounds: int
    bar: float


CASES = (
    Case("bound by overhead: 32 channels, 8x8", SMALL, 1, 8, 60, 0.80),
    Case("Stable Diffusion 1.5, batch 2, 16x16", UNetConfig(), 2, 16, 11, 1.0),
    Case("Stable Diffusion 1.5, batch 2, 32x32", UNetConfig(), 2, 32, 9, 1.0),
)


def pair(config: UNetConfig) -> tuple[nn.Module, nn.Module]:
    """Returns diffusers' UNet with random weights, and ours, which shares them."""
    with torch.device("meta"):
        theirs: Any = UNet2DConditionModel(**of_unet(config))
        ours = UNet(config)
    theirs = theirs.to_empty(device="cpu").eval().requires_grad_(False)
    noise = torch.randn(1_000_003) * 0.02
    for weight in theirs.parameters():
        repeats = -(-weight.numel() // len(noise))
        weight.copy_(noise.repeat(repeats)[: weight.numel()].view_as(weight))
    load(ours, theirs.state_dict(), UNET_KEYS)
    return theirs, ours.eval().requires_grad_(False)


def compare(case: Case) -> bool:
    """Prints the figures of a case; returns whether its bar is met."""
    theirs, ours = pair(case.config)
    latents = torch.randn(case.rows, 4, case.side, case.side)
    text, timestep = torch.randn(case.rows, 77, case.config.text_width), torch.tensor(500)
    context = {"timestep": timestep, "text": text}
    calls = {
        "diffusers": lambda: theirs(latents, timestep, text, return_dict=False)[0],
        "ours": lambda: ours(latents, context=context),
    }
    expected, output = (call() for call in calls.values())
    assert (output - expected).norm() / expected.norm() <= 1e-5
    median = milliseconds(calls, case.rounds)
    ratio = median["ours"] / median["diffusers"]
    print(
        f"{case.name:<38} ours {median['ours']:8.1f} ms "
        f"diffusers {median['diffusers']:8.1f} ms ratio {ratio:5.2f} bar {case.bar:4.2f} "
        f"{'ok' if ratio <= case.bar else 'MISSED'}",
        flush=True,
    )
    return ratio <= case.bar


def compare_convolutions(channels: int) -> None:
    """Prints the time of convolutions of small maps relative to torch's, with cold weights."""
    layers = [Convolution(channels, channels) for _ in range(2 + 2**25 // channels**2)]
    rows, turns = 2, {"torch": cycle(layers), "ours": cycle(layers[1:] + layers[:1])}
    ratios: list[str] = []
    for side in (2, 4, 8, 16):
        x = torch.randn(rows, channels, side, side)
        calls = {
            "torch": lambda x=x: nn.Conv2d.forward(next(turns["torch"]), x),
            "ours": lambda x=x: next(turns["ours"])(x),
        }
        median = milliseconds(calls, 24)
        ratios.append(f"{side}x{side} {median['ours'] / median['torch']:.2f}")
    print(
        f"convolution / torch's, {rows} maps, {channels} channels: {', '.join(ratios)}", flush=True
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="skip the official size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = CASES[:1] if options.small else CASES
    with torch.no_grad():
        met = [compare(case) for case in cases]
        for channels in (640, 1280):
            compare_convolutions(channels)
    return 0 if all(met) else 1


if __name__ == "__main__":
    raise SystemExit(main())
