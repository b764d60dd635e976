"""Measures StyleAligned: how often the pictures of a batch share the look of its first."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import torch

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.measure.sampling import BASE, generated, recogniser
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.scene import SHAPES

GROUP: Final = 4
"""The number of pictures that are generated in one style."""
COMPARED: Final = GROUP - 1
"""The number of pictures of a group that are compared with the first."""
END: Final = 0.7
"""The share of the steps after which StyleAligned ends; the last steps finish each shape alone."""
SHIFT: Final = 1.0
"""The others attend to the first picture more."""


class Aligned(Measure):
    """Whether pictures look like the first of their batch of four, and keep their own shapes.

    Prompts name one large shape each, and neither colour nor background.
    """

    base = BASE
    adapter = "style-aligned"
    options = {"shift": SHIFT}  # noqa: RUF012
    summary = "four prompts at a time, each of one large shape and nothing else"
    files = (WEIGHTS,)
    figures = (
        Figure("background of the first", least=0.9, most_without=0.2),
        Figure("colour of the first"),
        Figure("prompted shape", loss=0.1),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        random = Random(13)
        groups = [random.sample(SHAPES, GROUP) for _ in range(-(-count // COMPARED))]
        shapes = [shape for group in groups for shape in group]
        prompts = [f"a large {shape}" for shape in shapes]
        pixels = generated(model, prompts, settings, adapter, end=END, batch=GROUP)
        readings = recogniser().read(pixels)
        rows = [row for row in range(len(shapes)) if row % GROUP][:count]
        firsts = [readings[row - row % GROUP] for row in rows]
        triples = [
            (readings[row], first, shapes[row]) for row, first in zip(rows, firsts, strict=True)
        ]
        outcomes = {
            f"{name} of the first": [float(r[name] == first[name]) for r, first, _ in triples]
            for name in ("background", "colour")
        }
        outcomes["prompted shape"] = [float(r["shape"] == shape) for r, _, shape in triples]
        kept = torch.tensor(rows)
        return Samples(outcomes, [prompts[row] for row in rows], pixels[kept])
