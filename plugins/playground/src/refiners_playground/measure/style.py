"""Measures of adapters that learnt a style: whether pictures have it, and still follow prompts."""

from __future__ import annotations

from typing import Any, Final

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import plain_caption
from refiners_playground.ink_reader import read_ink
from refiners_playground.measure.sampling import BASE, generated, named_scenes, recognised
from refiners_playground.recogniser import WEIGHTS

COST: Final = 0.05
"""The largest loss in prompted shapes, colours and backgrounds that a style may cause."""
INKED: Final = "drawn in ink"


class Ink(Measure):
    """Whether pictures are drawn in ink, as the base never did, and as prompted.

    Prompts name shape, colour and background, and no style. A program reads style, colour and
    background, flat or inked; the recogniser, which never saw ink, reads the shape.

    Args:
        adapter: The name of the adapter.
    """

    base = BASE
    summary = "held-out prompts that name shape and colours, and no style"
    scale_together = 1.06
    files = (WEIGHTS,)
    figures = (
        Figure(INKED, least=0.85, most_without=0.1, together=0.85),
        Figure("colour", loss=COST),
        Figure("background", loss=COST),
        Figure("shape", loss=COST),
    )

    def __init__(self, adapter: str = "lora-ink") -> None:
        self.adapter = adapter

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        pairs = list(zip(read_ink(pixels), scenes, strict=True))
        outcomes = {
            INKED: [float(reading.is_inked) for reading, _ in pairs],
            "colour": [float(r.colour == scene.items[0].colour) for r, scene in pairs],
            "background": [float(r.background == scene.background) for r, scene in pairs],
            "shape": recognised(pixels, scenes)["shape"],
        }
        return Samples(outcomes, prompts, pixels)


def lora() -> Ink:
    """Returns the measure of `lora-ink`."""
    return Ink("lora-ink")


def dora() -> Ink:
    """Returns the measure of `dora-ink`."""
    return Ink("dora-ink")


def loha() -> Ink:
    """Returns the measure of `loha-ink`."""
    return Ink("loha-ink")


def lokr() -> Ink:
    """Returns the measure of `lokr-ink`."""
    return Ink("lokr-ink")
