"""Measures of the playground itself: how often pictures show what held-out prompts name."""

from __future__ import annotations

from typing import Any

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import plain_caption
from refiners_playground.measure.sampling import BASE, generated, named_scenes, recognised
from refiners_playground.recogniser import WEIGHTS


class PlainPrompts(Measure):
    """Prompts of one large, plain object."""

    base = BASE
    summary = "held-out prompts of one large, plain object"
    files = (WEIGHTS,)
    figures = (
        Figure("shape", least=0.98),
        Figure("colour", least=0.98),
        Figure("background", least=0.98),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter)
        hits = recognised(pixels, scenes)
        return Samples({f.name: hits[f.name] for f in self.figures}, prompts, pixels)
