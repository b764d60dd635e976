"""Measures of image prompts: whether pictures show what the picture that prompts them shows."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, Final

from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.measure.sampling import (
    BASE,
    all_of,
    generated,
    named_scenes,
    recognised,
    recogniser,
)
from refiners_playground.pattern import FILLS
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.scene import SHAPES, Scene, draw

AGAINST: Final = "against a prompt: its shape in the picture's colour"
AGAINST_SCALE: Final = 0.5
"""The strength beside a prompt that names another shape."""


class ImagePrompt(Measure):
    """The attributes of pictures against those of their image prompts, with an empty text.

    Args:
        adapter: The name of the adapter.
        figures: The figures; their names are attributes of the recogniser, several joined by `and`,
            or `AGAINST`, which is measured beside a text that names another shape.
        filled: Whether objects in the image prompts have fills of all kinds.
    """

    base = BASE
    summary = "pictures of held-out scenes as prompts, and no words"
    scale_together = 0.6
    files = (WEIGHTS,)

    def __init__(self, adapter: str, *figures: Figure, filled: bool = False) -> None:
        self.adapter, self.figures, self.filled = adapter, figures, filled

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = self._scenes(count)
        value = draw(scenes)
        prompts = [""] * count
        pixels = generated(model, prompts, settings, adapter, value)
        hits = recognised(pixels, scenes)
        outcomes = {
            figure.name: all_of(*(hits[name] for name in figure.name.split(" and ")))
            for figure in self.figures
            if figure.name != AGAINST
        }
        if any(figure.name == AGAINST for figure in self.figures):
            outcomes[AGAINST] = self._against(model, adapter, scenes, settings)
        return Samples(outcomes, prompts, pixels)

    def condition(self, count: int) -> Tensor:
        """Returns pictures of the held-out scenes."""
        return draw(named_scenes(count))

    def _scenes(self, count: int) -> list[Scene]:
        scenes = named_scenes(count)
        if not self.filled:
            return scenes
        return [
            replace(scene, items=(replace(scene.items[0], fill=FILLS[row % len(FILLS)]),))
            for row, scene in enumerate(scenes)
        ]

    def _against(
        self, model: Any, adapter: Adapter | None, scenes: list[Scene], settings: Settings
    ) -> list[float]:
        """Returns 1 where the shape is that of the text and the colour that of the picture."""
        random = Random(17)
        shapes = [
            random.choice([shape for shape in SHAPES if shape != scene.items[0].shape])
            for scene in scenes
        ]
        prompts = [f"a large {shape}" for shape in shapes]
        pixels = generated(model, prompts, settings, adapter, draw(scenes), scale=AGAINST_SCALE)
        triples = zip(recogniser().read(pixels), shapes, scenes, strict=True)
        return [
            float(reading["shape"] == shape and reading["colour"] == scene.items[0].colour)
            for reading, shape, scene in triples
        ]


def ip_adapter() -> ImagePrompt:
    """Returns the measure of `ip-adapter`."""
    return ImagePrompt(
        "ip-adapter",
        Figure("colour", least=0.7, most_without=0.2, together=0.85),
        Figure("background", least=0.9, most_without=0.2, together=0.85),
        Figure("shape", most_without=0.25),
        Figure(AGAINST, least=0.75, most_without=0.25),
    )


def ip_adapter_plus() -> ImagePrompt:
    """Returns the measure of `ip-adapter-plus`."""
    return ImagePrompt(
        "ip-adapter-plus",
        Figure("shape and fill", least=0.7, most_without=0.2, together=0.85),
        Figure("shape", together=0.85),
        Figure("fill"),
        Figure("colour", together=0.85),
        filled=True,
    )


def dino() -> ImagePrompt:
    """Returns the measure of `ip-adapter-dinov2`."""
    return ImagePrompt(
        "ip-adapter-dinov2",
        Figure("shape", least=0.8, most_without=0.25, together=0.85),
        Figure("colour"),
        Figure("background"),
    )
