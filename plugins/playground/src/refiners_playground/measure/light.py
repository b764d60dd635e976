"""Measures of adapters that light an object anew: the side of the light, and the object itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.lesson.light import (
    cut_out,
    directions,
    light_side,
    lit,
    lit_caption,
    sides_in_turn,
)
from refiners_playground.measure.region import OVERLAP, foreground, shared
from refiners_playground.measure.sampling import BASE, generated, named_scenes, placed_scenes
from refiners_playground.scene import COLOURS, Scene, draw


class Light(Measure):
    """Whether light comes from the side that the prompt names, and the object is where it was.

    A program reads the side from the brightness; each side is asked for as often as the others.
    """

    base = BASE
    adapter = "ic-light-fc"
    summary = "held-out objects on grey; prompts name what they show, and the side of the light"
    figures = (
        Figure("side of the light", least=0.75, most_without=0.4, together=0.85),
        Figure(OVERLAP, is_share=False, least=0.7, most_without=0.45),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = placed_scenes(count)
        sides = sides_in_turn(count)
        prompts = [lit_caption(scene, side) for scene, side in zip(scenes, sides, strict=True)]
        pixels = generated(model, prompts, settings, adapter, cut_out(scenes))
        flat = draw(scenes)
        read = light_side(pixels, flat)
        outcomes = {
            "side of the light": [float(a == b) for a, b in zip(read, sides, strict=True)],
            OVERLAP: overlap_under_light(pixels, scenes, sides).tolist(),
        }
        return Samples(outcomes, prompts, pixels)

    def condition(self, count: int) -> Tensor:
        """Returns large, centred objects on grey, one for each held-out scene."""
        return cut_out(named_scenes(count))


def overlap_under_light(
    pixels: Float[Tensor, "batch 3 height width"], scenes: Sequence[Scene], sides: Sequence[str]
) -> Float[Tensor, " batch"]:
    """Returns the intersection over union (0...1) of the objects in lit pictures and in scenes.

    An object is where pixels are closer to its colour than to that of the background, both under
    the light. `foreground`, which expects one colour around an object, finds none in lit pictures.

    Args:
        pixels: Pictures in 0...1.
        scenes: Scenes of one plain object each.
        sides: The side of the light in each picture.
    """
    light = lit(torch.ones_like(pixels), directions(sides))
    objects, grounds = (
        torch.tensor([COLOURS[name] for name in names])[..., None, None] * light
        for names in (
            [scene.items[0].colour for scene in scenes],
            [scene.background for scene in scenes],
        )
    )
    is_object = (pixels - objects).norm(dim=1) < (pixels - grounds).norm(dim=1)
    return shared(is_object, foreground(draw(scenes)))
