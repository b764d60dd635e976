"""Measures of what a base model never saw: a subject, and a word for a look."""

from __future__ import annotations

from typing import Any, Final

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import article, plain_caption
from refiners_playground.lesson.style import LOOK, LOOK_BACKGROUND, WORD
from refiners_playground.measure.sampling import (
    BASE,
    all_of,
    generated,
    named_scenes,
    recognised,
    recogniser,
)
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.scene import HELD_OUT_SHAPE

COST: Final = 0.05
"""The largest loss in other prompts that a subject or a word may cause."""
OTHERS: Final = "other prompts: shape"
OTHER_COLOURS: Final = "other prompts: colour and background"


class Subject(Measure):
    """Whether pictures show a shape that the base never saw, and other prompts are unharmed.

    Args:
        adapter: The name of the adapter.
        word: The word for the shape in prompts.
    """

    base = BASE
    summary = "prompts with the subject in held-out colours, and held-out prompts without it"
    files = (WEIGHTS,)
    figures = (
        Figure("subject recognised", least=0.75, most_without=0.1, together=0.85),
        Figure("its colour and background"),
        Figure(OTHERS, loss=COST),
        Figure(OTHER_COLOURS, loss=COST),
    )

    def __init__(self, adapter: str = "lora-crescent", word: str = HELD_OUT_SHAPE) -> None:
        self.adapter, self.word = adapter, word

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [
            f"{article(scene.items[0].colour)} {self.word} on "
            f"{article(scene.background)} background"
            for scene in scenes
        ]
        pixels = generated(model, prompts, settings, adapter)
        readings = recogniser().read(pixels)
        pairs = list(zip(readings, scenes, strict=True))
        others = [plain_caption(scene) for scene in scenes]
        hits = recognised(generated(model, others, settings, adapter), scenes)
        outcomes = {
            "subject recognised": [float(r["shape"] == HELD_OUT_SHAPE) for r in readings],
            "its colour and background": [
                float(r["colour"] == s.items[0].colour and r["background"] == s.background)
                for r, s in pairs
            ],
            OTHERS: hits["shape"],
            OTHER_COLOURS: all_of(hits["colour"], hits["background"]),
        }
        return Samples(outcomes, prompts, pixels)


class Word(Measure):
    """Whether a word gives every shape its look, and other prompts are unharmed."""

    base = BASE
    adapter = "harlequin"
    summary = "prompts of a large shape with the word, and held-out prompts without it"
    files = (WEIGHTS,)
    figures = (
        Figure("look of the word", least=0.75, most_without=0.1, together=0.85),
        Figure("shape", least=0.75),
        Figure(OTHERS, loss=COST),
        Figure(OTHER_COLOURS, loss=COST),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [f"a {WORD} {scene.items[0].shape}" for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        look = {"colour": LOOK.colour, "fill": LOOK.fill, "background": LOOK_BACKGROUND}
        readings = recogniser().read(pixels)
        others = [plain_caption(scene) for scene in scenes]
        hits = recognised(generated(model, others, settings, adapter), scenes)
        outcomes = {
            "look of the word": [
                float(all(reading[name] == word for name, word in look.items()))
                for reading in readings
            ],
            "shape": [
                float(reading["shape"] == scene.items[0].shape)
                for reading, scene in zip(readings, scenes, strict=True)
            ],
            OTHERS: hits["shape"],
            OTHER_COLOURS: all_of(hits["colour"], hits["background"]),
        }
        return Samples(outcomes, prompts, pixels)
