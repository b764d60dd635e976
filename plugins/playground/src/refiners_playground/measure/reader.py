"""Measures of the readers that others rely on, and of the autoencoder, on drawn pictures."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_core.models.diffusion import LatentDiffusion
from refiners_playground.caption import plain_caption
from refiners_playground.face import draw_faces
from refiners_playground.ink_reader import read_ink
from refiners_playground.lesson.light import directions, lit, sides_in_turn
from refiners_playground.measure.light import overlap_under_light
from refiners_playground.measure.sampling import (
    BASE,
    batches,
    named_scenes,
    placed_scenes,
    recognised,
    recogniser,
)
from refiners_playground.pattern import FILLS
from refiners_playground.random_scene import (
    inked,
    pair_scene,
    placed_scene,
    random_face,
    subject_scene,
    varied_scene,
)
from refiners_playground.recogniser import WEIGHTS, pair_agreement
from refiners_playground.scene import Scene, draw

LIT: Final = "lit objects, overlap"
MOST: Final = 0.02
"""The largest share of flat drawings that may be read as ink."""


class DrawnScenes(Measure):
    """The recogniser on drawn scenes of every size, place and fill, and on pairs."""

    base = BASE
    summary = "the recogniser on drawn scenes"
    files = (WEIGHTS,)
    figures = (
        Figure("shape", least=0.97),
        Figure("colour", least=0.99),
        Figure("background", least=0.99),
        Figure("fill"),
        Figure("size"),
        Figure("crescent", least=0.97),
        Figure("both of two objects", least=0.95),
        Figure("relation of two objects", least=0.95),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(2_000_003 + settings.seed)
        scenes = [placed_scene(random, patterned=0.25) for _ in range(count)]
        hits = recognised(draw(scenes), scenes)
        subjects = [subject_scene(random) for _ in range(count)]
        hits["crescent"] = recognised(draw(subjects), subjects)["shape"]
        pairs = [pair_scene(random, held_out=True) for _ in range(count)]
        outcomes = pair_agreement(recogniser().read_scenes(draw(pairs)), pairs)
        hits["both of two objects"] = [float(hit) for hit in outcomes["bound"]]
        hits["relation of two objects"] = [float(hit) for hit in outcomes["relation"]]
        return Samples({figure.name: hits[figure.name] for figure in self.figures})


class RoundTrip(Measure):
    """Scenes and faces after a round trip through the latents."""

    base = BASE
    summary = "drawn scenes, encoded and decoded"
    files = (WEIGHTS,)
    figures = (
        Figure("PSNR in dB", is_share=False, least=29),
        Figure("PSNR of faces in dB", is_share=False, least=30),
        Figure("shape", least=0.97),
        Figure("fill"),
        Figure(LIT, is_share=False),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(2_000_003 + settings.seed)
        pictures = draw([varied_scene(random) for _ in range(count)])
        faces = draw_faces([random_face(random, held_out=True) for _ in range(count)])
        outcomes: dict[str, list[float]] = {}
        for name, pixels in (("PSNR in dB", pictures), ("PSNR of faces in dB", faces)):
            errors = (decoded(model, pixels, settings) - pixels).square().mean((1, 2, 3))
            outcomes[name] = (-10 * errors.log10()).tolist()
        scenes = [_filled(scene, row) for row, scene in enumerate(named_scenes(count))]
        hits = recognised(decoded(model, draw(scenes), settings), scenes)
        outcomes |= {name: hits[name] for name in ("shape", "fill")}
        placed, sides = placed_scenes(count), sides_in_turn(count)
        shone = lit(draw(placed), directions(sides))
        overlaps = overlap_under_light(decoded(model, shone, settings), placed, sides)
        return Samples(outcomes | {LIT: overlaps.tolist()})


class InkReading(Measure):
    """The program that reads ink, on ink and on every other style."""

    base = BASE
    summary = "the reader of ink on drawn scenes, flat and inked"
    figures = (
        Figure("ink read as ink", least=0.97),
        Figure("ink read as ink after a round trip", least=0.97),
        Figure("colour of ink drawings", least=0.97),
        Figure("background of ink drawings", least=0.97),
        Figure("flat scenes with fills read as ink", most=MOST),
        Figure("scenes of every kind read as ink", most=MOST),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes, random = named_scenes(count), Random(2_000_003 + settings.seed)
        drawn = draw([inked(scene) for scene in scenes])
        pairs = list(zip(read_ink(drawn), scenes, strict=True))
        filled = draw([_filled(scene, row) for row, scene in enumerate(scenes)])
        placed = [placed_scene(random, patterned=0.5, textured=0.5) for _ in range(count)]
        names = [figure.name for figure in self.figures]
        outcomes = (
            [float(reading.is_inked) for reading, _ in pairs],
            _inked(decoded(model, drawn, settings)),
            [float(r.colour == scene.items[0].colour) for r, scene in pairs],
            [float(r.background == scene.background) for r, scene in pairs],
            _inked(filled),
            _inked(draw(placed)),
        )
        titles = [plain_caption(scene) for scene in scenes]
        return Samples(dict(zip(names, outcomes, strict=True)), titles, drawn)


@torch.no_grad()
def decoded(
    model: LatentDiffusion, pixels: Tensor, settings: Settings
) -> Float[Tensor, "batch 3 height width"]:
    """Encodes and decodes pictures in 0...1."""
    parts = [
        model.decode(model.encode(pixels[rows].to(model.device, model.dtype)))
        for rows in batches(len(pixels), settings.batch)
    ]
    return torch.cat(parts).float().cpu()


def _filled(scene: Scene, row: int) -> Scene:
    """Returns a scene with one of the fills, each as often as the others."""
    return replace(scene, items=(replace(scene.items[0], fill=FILLS[row % len(FILLS)]),))


def _inked(pixels: Tensor) -> list[float]:
    return [float(reading.is_inked) for reading in read_ink(pixels)]
