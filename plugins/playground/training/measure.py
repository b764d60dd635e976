"""Prints every figure that the playground promises, and fails when a bar is missed.

Run it from the repository, with the plugins installed:

    python plugins/playground/training/measure.py
    python plugins/playground/training/measure.py --json
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random

import refiners
import torch
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.effect import (
    Settings,
    control_effect,
    image_effect,
    placed_scenes,
    prompt_effect,
)
from refiners_playground.recogniser import agreement, load_recogniser
from refiners_playground.sampling import placed_scene, varied_scene
from refiners_playground.scenes import draw, held_out_scenes
from torch import Tensor

from refiners_core.models.diffusion import LatentDiffusion

LEAST = 96
"""Pictures that a figure must rest on."""


@dataclass(frozen=True)
class Figure:
    """One measured number, and the bound it must keep, if any."""

    name: str
    value: float
    count: int
    least: float | None = None
    most: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the value keeps its bounds."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        bound = f">= {self.least:g}" if self.least is not None else ""
        bound = f"<= {self.most:g}" if self.most is not None else bound
        verdict = "" if not bound else "kept" if self.is_kept else "MISSED"
        return f"{self.name:<44} {self.value:>7.3f}  {bound:<9} {verdict:<7} n = {self.count}"


def reader_figures() -> Iterator[Figure]:
    """How well the recogniser reads scenes that were drawn, not generated."""
    random = Random(2_000_003)
    scenes = [placed_scene(random, patterned=0.25) for _ in range(512)]
    found = agreement(load_recogniser(), draw(scenes), scenes)
    bars = {"shape": 0.97, "colour": 0.99, "background": 0.99}
    for name, share in found.items():
        yield Figure(f"recogniser on drawn scenes: {name}", share, len(scenes), bars.get(name))


@torch.no_grad()
def round_trip(model: LatentDiffusion, pixels: Tensor) -> Tensor:
    """What is left of pictures in 0...1 after encoding and decoding."""
    return model.decode(model.encode(pixels))


def autoencoder_figures(model: LatentDiffusion, count: int) -> Iterator[Figure]:
    """How near pictures are to themselves after a round trip through the latents."""
    random = Random(2_000_003)
    pixels = draw([varied_scene(random) for _ in range(count)])
    error = (round_trip(model, pixels) - pixels).square().mean((1, 2, 3))
    yield Figure("autoencoder: PSNR in dB", (-10 * error.log10()).mean().item(), count, 29)
    scenes = list(held_out_scenes())
    found = agreement(load_recogniser(), round_trip(model, draw(scenes)), scenes)
    yield Figure("autoencoder: shape after a round trip", found["shape"], len(scenes))


def base_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """What appears of what held-out prompts name."""
    found = prompt_effect(model, count, settings)
    for name, bar in (("shape", 0.90), ("colour", 0.97), ("background", 0.97)):
        yield Figure(f"prompt: {name}", found[name], count, bar)


def control_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """How well generated edges agree with those asked for."""
    scenes = placed_scenes(count)
    wanted = edges(draw(scenes))
    ceiling = edge_agreement(edges(round_trip(model, draw(scenes))), wanted).mean().item()
    with refiners.load_adapter("controlnet-canny").on(model) as control:
        off = control_effect(model, control, count, settings, scale=0.0)
        on = control_effect(model, control, count, settings, scale=1.0)
        wrong = control_effect(model, control, count, settings, against=1)
    yield Figure("ControlNet: edge F1 at scale 0", off, count, most=on / 2)
    yield Figure("ControlNet: edge F1 at scale 1", on, count, 0.55)
    yield Figure("ControlNet: edge F1 against another's edges", wrong, count)
    yield Figure("ControlNet: edge F1 of the autoencoder alone", ceiling, count)


def image_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """What of a picture appears when the text prompt is empty."""
    with refiners.load_adapter("ip-adapter").on(model) as prompter:
        off = image_effect(model, prompter, count, settings, scale=0.0)
        on = image_effect(model, prompter, count, settings, scale=1.0)
    for name, bar in (("colour", 0.70), ("background", 0.90)):
        yield Figure(f"IP-Adapter: {name} at scale 0", off[name], count, most=0.2)
        yield Figure(f"IP-Adapter: {name} at scale 1", on[name], count, bar)
    yield Figure("IP-Adapter: shape at scale 1", on["shape"], count)


def main() -> int:
    """Measures, prints, and says by the exit code whether every bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=LEAST, help="pictures for each figure")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if not LEAST <= options.count <= len(list(held_out_scenes())):
        parser.error(f"--count is {LEAST} to {len(list(held_out_scenes()))}")
    settings = Settings()
    model = refiners.load_model("playground")
    figures: list[Figure] = []
    for part in (
        reader_figures(),
        autoencoder_figures(model, options.count),
        base_figures(model, options.count, settings),
        control_figures(model, options.count, settings),
        image_figures(model, options.count, settings),
    ):
        for figure in part:
            figures.append(figure)
            if not options.json:
                print(figure, flush=True)
    if options.json:
        print(json.dumps([asdict(f) | {"is_kept": f.is_kept} for f in figures], indent=2))
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
