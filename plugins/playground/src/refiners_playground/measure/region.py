"""Measures of adapters that follow maps of regions: whether objects cover what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import plain_caption
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.ink_reader import APART
from refiners_playground.lesson.control import regions
from refiners_playground.measure.control import F1, edge_pictures
from refiners_playground.measure.sampling import BASE, generated, named_scenes, placed_scenes
from refiners_playground.scene import draw

OVERLAP: Final = "regions, overlap"


class Regions(Measure):
    """The overlap of drawn objects with the regions that a map has: intersection over union.

    Prompts name shape and colours, and neither size nor place.
    """

    base = BASE
    adapter = "controlnet-seg"
    summary = "maps of held-out scenes of any size and place; prompts name shape and colours"
    figures = (Figure(OVERLAP, is_share=False, least=0.7, most_without=0.45, together=0.85),)

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = placed_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter, regions(scenes))
        return Samples({OVERLAP: overlap(pixels, draw(scenes)).tolist()}, prompts, pixels)

    def condition(self, count: int) -> Tensor:
        """Returns the maps of large, centred objects, one for each held-out scene."""
        return regions(named_scenes(count))


class Union(Measure):
    """A ControlNet of several kinds: with edges, and with a map of regions."""

    base = BASE
    adapter = "controlnet-union"
    summary = "edges, then maps of held-out scenes; prompts name shape and colours"
    figures = (
        Figure(F1, is_share=False, least=0.7, most_without=0.3),
        Figure(OVERLAP, is_share=False, least=0.7, most_without=0.45, together=0.85),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = placed_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        wanted = draw(scenes)
        lines = {"canny": edge_pictures(scenes)}
        drawn = generated(model, prompts, settings, adapter, lines)
        maps = {"segmentation": regions(scenes)}
        covered = drawn if adapter is None else generated(model, prompts, settings, adapter, maps)
        outcomes = {
            F1: edge_agreement(edges(drawn), edges(wanted)).tolist(),
            OVERLAP: overlap(covered, wanted).tolist(),
        }
        return Samples(outcomes, prompts, drawn)

    def condition(self, count: int) -> Mapping[str, Tensor]:
        """Returns the maps of large, centred objects, one for each held-out scene."""
        return {"segmentation": regions(named_scenes(count))}


def overlap(
    pixels: Float[Tensor, "batch 3 height width"], wanted: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, " batch"]:
    """Returns the intersection over union (0...1) of the objects in two pictures."""
    return shared(foreground(pixels), foreground(wanted))


def shared(
    ours: Bool[Tensor, "batch height width"], theirs: Bool[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """Returns the intersection over union (0...1) of regions."""
    both, either = (ours & theirs).sum((1, 2)), (ours | theirs).sum((1, 2))
    return both / either.clamp(min=1)


def foreground(
    pixels: Float[Tensor, "batch 3 height width"],
) -> Bool[Tensor, "batch height width"]:
    """Returns which pixels differ from the background, the median colour of the border."""
    border = [pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]]
    ground = torch.cat(border, -1).median(-1).values
    return (pixels - ground[..., None, None]).norm(dim=1) > APART
