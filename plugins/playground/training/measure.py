"""Prints the measured effects of the playground's adapters; fails if one misses its bound.

Run it from the repository, with the plugins installed:

    python plugins/playground/training/measure.py
    python plugins/playground/training/measure.py lora style-aligned
    python plugins/playground/training/measure.py --json
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from random import Random

import refiners
import torch
from figure import Figure
from palette_effect import palette_effect
from refiners_playground.alignment import SHIFT, aligned_effect
from refiners_playground.caption import plain_caption
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.effect import (
    BATCH,
    Settings,
    control_effect,
    generated,
    image_effect,
    named_scenes,
    placed_scenes,
    prompt_effect,
    style_effect,
)
from refiners_playground.ink_reader import read_ink
from refiners_playground.pattern import FILLS
from refiners_playground.random_scene import inked, placed_scene, varied_scene
from refiners_playground.recogniser import agreement, load_recogniser
from refiners_playground.scene import Scene, draw, held_out_scenes
from torch import Tensor
from writer_figure import writer_figures

from refiners_core.models.diffusion import LatentDiffusion

LEAST = 96
"""The smallest number of pictures behind a figure."""
LORA_COST = 0.05
"""The largest loss in prompted colours and backgrounds that a style LoRA may cause."""
ALIGNED_COST = 0.12
"""The largest loss in prompted shapes that StyleAligned may cause."""


def reader_figures() -> Iterator[Figure]:
    """Yields the accuracy of the recogniser on drawn scenes."""
    random = Random(2_000_003)
    scenes = [placed_scene(random, patterned=0.25) for _ in range(512)]
    shares = agreement(load_recogniser(), draw(scenes), scenes)
    bars = {"shape": 0.97, "colour": 0.99, "background": 0.99}
    for name, share in shares.items():
        yield Figure(f"recogniser on drawn scenes: {name}", share, len(scenes), bars.get(name))


@torch.no_grad()
def round_trip(model: LatentDiffusion, pixels: Tensor) -> Tensor:
    """Encodes and decodes pictures in 0...1."""
    return model.decode(model.encode(pixels))


def autoencoder_figures(model: LatentDiffusion, count: int) -> Iterator[Figure]:
    """Yields how well pictures survive a round trip through the latents."""
    random = Random(2_000_003)
    pixels = draw([varied_scene(random) for _ in range(count)])
    error = (round_trip(model, pixels) - pixels).square().mean((1, 2, 3))
    yield Figure("autoencoder: PSNR in dB", (-10 * error.log10()).mean().item(), count, 29)
    scenes = list(held_out_scenes())
    shares = agreement(load_recogniser(), round_trip(model, draw(scenes)), scenes)
    yield Figure("autoencoder: shape after a round trip", shares["shape"], len(scenes))


def base_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how often held-out prompts are followed."""
    shares = prompt_effect(model, count, settings)
    for name, bar in (("shape", 0.90), ("colour", 0.97), ("background", 0.97)):
        yield Figure(f"prompt: {name}", shares[name], count, bar)


def control_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how well generated edges agree with the requested ones."""
    scenes = placed_scenes(count)
    requested = edges(draw(scenes))
    ceiling = edge_agreement(edges(round_trip(model, draw(scenes))), requested).mean().item()
    with refiners.load_adapter("controlnet-canny").on(model) as control:
        off = control_effect(model, control, count, settings, scale=0.0)
        on = control_effect(model, control, count, settings, scale=1.0)
        wrong = control_effect(model, control, count, settings, against=1)
    yield Figure("ControlNet: edge F1 at scale 0", off, count, most=on / 2)
    yield Figure("ControlNet: edge F1 at scale 1", on, count, 0.55)
    yield Figure("ControlNet: edge F1 against another's edges", wrong, count)
    yield Figure("ControlNet: edge F1 of the autoencoder alone", ceiling, count)


def image_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how often an image prompt is followed when the text prompt is empty."""
    with refiners.load_adapter("ip-adapter").on(model) as prompter:
        off = image_effect(model, prompter, count, settings, scale=0.0)
        on = image_effect(model, prompter, count, settings, scale=1.0)
    for name, bar in (("colour", 0.70), ("background", 0.90)):
        yield Figure(f"IP-Adapter: {name} at scale 0", off[name], count, most=0.2)
        yield Figure(f"IP-Adapter: {name} at scale 1", on[name], count, bar)
    yield Figure("IP-Adapter: shape at scale 1", on["shape"], count)


def palette_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how far the colours of pictures are from those of a palette beside the prompt."""
    with refiners.load_adapter("palette").on(model) as palette:
        off = palette_effect(model, palette, count, settings, scale=0.0)
        on = palette_effect(model, palette, count, settings)
        equal = palette_effect(model, palette, count, settings, is_weighted=False)
    yield Figure("palette: CIEDE2000 of colours at scale 0", off, count, 25)
    yield Figure("palette: CIEDE2000 of colours at scale 1", on, count, most=8)
    yield Figure("palette: CIEDE2000 with equal weights", equal, count, most=8)


def ink_reader_figures(model: LatentDiffusion) -> Iterator[Figure]:
    """Yields how well the program that reads ink tells it from every style of the base model."""
    scenes = list(held_out_scenes())
    drawn = draw([inked(scene) for scene in scenes])
    readings = read_ink(drawn)
    pairs = list(zip(readings, scenes, strict=True))
    counts = {
        "inked": sum(reading.is_inked for reading in readings),
        "colour": sum(reading.colour == scene.items[0].colour for reading, scene in pairs),
        "background": sum(reading.background == scene.background for reading, scene in pairs),
    }
    for name, hits in counts.items():
        yield Figure(f"ink reader on ink drawings: {name}", hits / len(scenes), len(scenes), 0.97)
    kept = sum(reading.is_inked for reading in read_ink(round_trip(model, drawn))) / len(scenes)
    yield Figure("ink reader after a round trip: inked", kept, len(scenes), 0.97)
    for fill in FILLS:
        others = read_ink(draw([filled(scene, fill) for scene in scenes]))
        share = sum(reading.is_inked for reading in others) / len(scenes)
        yield Figure(f"ink reader on {fill} scenes: inked", share, len(scenes), most=0.02)
    random = Random(2_000_003)
    placed = [placed_scene(random, patterned=0.5, textured=0.5) for _ in range(512)]
    share = sum(reading.is_inked for reading in read_ink(draw(placed))) / len(placed)
    yield Figure("ink reader on varied scenes: inked", share, len(placed), most=0.02)


def filled(scene: Scene, fill: str) -> Scene:
    """Returns the scene with another fill of its object."""
    return replace(scene, items=(replace(scene.items[0], fill=fill),))


def lora_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how often a LoRA applies its style, and how well prompts are still followed."""
    prompts = [plain_caption(scene) for scene in named_scenes(BATCH)]
    bare = generated(model, prompts, settings)
    with refiners.load_adapter("lora-ink").on(model) as style:
        off = style_effect(model, style, count, settings, scale=0.0)
        on = style_effect(model, style, count, settings, scale=1.0)
        idle = generated(model, prompts, settings, {style: None}, scale=0.0)
    yield Figure("LoRA: drawn in ink at scale 0", off["inked"], count, most=0.1)
    yield Figure("LoRA: drawn in ink at scale 1", on["inked"], count, 0.85)
    for name in ("colour", "background"):
        yield Figure(f"LoRA: {name} at scale 0", off[name], count)
        yield Figure(f"LoRA: {name} at scale 1", on[name], count, off[name] - LORA_COST)
    yield Figure("LoRA: shape at scale 1", on["shape"], count)
    changed = (bare != idle).flatten(1).any(1).float().mean().item()
    yield Figure("LoRA: pictures that scale 0 changes", changed, BATCH, most=0)


def aligned_figures(model: LatentDiffusion, count: int, settings: Settings) -> Iterator[Figure]:
    """Yields how often pictures look like the first of their batch, and keep their own shape."""
    off = aligned_effect(model, None, count, settings)
    with refiners.load_adapter("style-aligned", shift=SHIFT).on(model) as aligned:
        on = aligned_effect(model, aligned, count, settings)
    yield Figure("StyleAligned: background as the first's, off", off["background"], count, most=0.2)
    yield Figure("StyleAligned: background as the first's, on", on["background"], count, 0.9)
    yield Figure("StyleAligned: colour as the first's, off", off["colour"], count)
    yield Figure("StyleAligned: colour as the first's, on", on["colour"], count)
    yield Figure("StyleAligned: prompted shape, off", off["shape"], count)
    yield Figure(
        "StyleAligned: prompted shape, on", on["shape"], count, off["shape"] - ALIGNED_COST
    )


PARTS: Mapping[str, Callable[[LatentDiffusion, int, Settings], Iterator[Figure]]] = {
    "reader": lambda *_: reader_figures(),
    "ink-reader": lambda model, *_: ink_reader_figures(model),
    "autoencoder": lambda model, count, _: autoencoder_figures(model, count),
    "base": base_figures,
    "controlnet": control_figures,
    "ip-adapter": image_figures,
    "style-aligned": aligned_figures,
    "lora": lora_figures,
    "palette": palette_figures,
    "writer": writer_figures,
}
"""The measurements by name, in order."""


def main() -> int:
    """Measures and prints; returns 0 if every figure is within its bounds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; or all")
    parser.add_argument("--count", type=int, default=LEAST, help="pictures for each figure")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown PART {', '.join(sorted(unknown))}; try {', '.join(PARTS)}")
    if not LEAST <= options.count <= len(list(held_out_scenes())):
        parser.error(f"--count is {LEAST} to {len(list(held_out_scenes()))}")
    settings = Settings()
    model = refiners.load_model("playground")
    figures: list[Figure] = []
    for name in options.parts or PARTS:
        for figure in PARTS[name](model, options.count, settings):
            figures.append(figure)
            if not options.json:
                print(figure, flush=True)
    if options.json:
        print(json.dumps([asdict(f) | {"is_kept": f.is_kept} for f in figures], indent=2))
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
