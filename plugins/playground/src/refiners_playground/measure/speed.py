"""Measures of adapters with which few steps suffice: what is left of the figures of many steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import plain_caption
from refiners_playground.measure.sampling import BASE, generated, named_scenes, recognised
from refiners_playground.recogniser import WEIGHTS

FEW, MANY = 4, 30
"""The steps with the adapter, and those of the model alone."""
NAMES: Final = ("shape", "colour", "background")
KEPT: Final = 0.9
"""The smallest share of a figure of 30 steps that 4 steps keep."""


class FewSteps(Measure):
    """Held-out prompts in 4 steps without guidance, against 30 steps of the model with guidance."""

    base = BASE
    adapter = "lcm-lora"
    summary = "held-out prompts in 4 steps without guidance, and the model's in 30 with"
    files = (WEIGHTS,)
    figures = (
        *(
            Figure(f"{name}, {FEW} steps", share_of=(f"{name}, {MANY} steps", KEPT))
            for name in NAMES
        ),
        *(Figure(f"{name}, {MANY} steps") for name in NAMES),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = few_steps(model, prompts, settings, adapter)
        few = recognised(pixels, scenes)
        many = recognised(generated(model, prompts, settings, steps=MANY), scenes)
        outcomes = {
            f"{name}, {steps} steps": hits[name]
            for steps, hits in ((FEW, few), (MANY, many))
            for name in NAMES
        }
        return Samples(outcomes, prompts, pixels)


def few_steps(
    model: Any, prompts: Sequence[str], settings: Settings, adapter: Adapter | None
) -> Tensor:
    """Generates in 4 steps of the LCM sampler, without guidance (arXiv:2311.05556)."""
    options: dict[str, Any] = {"steps": FEW, "sampler": "lcm", "guidance": 1.0}
    return generated(model, prompts, settings, adapter, **options)
