"""Measures of adapters that follow edges: whether the edges of pictures are those asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_playground.caption import plain_caption
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.measure.sampling import BASE, generated, named_scenes, placed_scenes
from refiners_playground.scene import Scene, draw

F1: Final = "edges, F1"
RECALL: Final = "edges, recall"


class Edges(Measure):
    """The edges of generated pictures against those requested, with a tolerance of one pixel.

    Prompts name shape and colours, and neither size nor place. F1 counts edges that are missing and
    edges that are not requested; recall counts the missing ones alone, so that an adapter that
    draws lines of another kind, such as ink, can be worn beside.

    Args:
        adapter: The name of the adapter.
        least: The smallest F1 with the adapter.
        most_without: The greatest F1 without it.
    """

    base = BASE
    summary = "edges of held-out scenes of any size and place; prompts name shape and colours"

    def __init__(self, adapter: str, least: float, most_without: float | None = None) -> None:
        self.adapter = adapter
        self.figures = (
            Figure(F1, is_share=False, least=least, most_without=most_without),
            Figure(RECALL, is_share=False, together=0.85),
        )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = placed_scenes(count)
        prompts = [plain_caption(scene) for scene in scenes]
        pixels = generated(model, prompts, settings, adapter, edge_pictures(scenes))
        requested, drawn = edges(draw(scenes)), edges(pixels)
        outcomes = {
            F1: edge_agreement(drawn, requested).tolist(),
            RECALL: recall(drawn, requested).tolist(),
        }
        return Samples(outcomes, prompts, pixels)

    def condition(self, count: int) -> Tensor:
        """Returns the edges of large, centred objects, one for each held-out scene."""
        return edge_pictures(named_scenes(count))


def edge_pictures(scenes: Sequence[Scene]) -> Float[Tensor, "batch 3 height width"]:
    """Returns the edges of scenes as pictures with three equal channels."""
    return edges(draw(scenes)).expand(-1, 3, -1, -1)


def recall(
    drawn: Float[Tensor, "batch 1 height width"], requested: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, " batch"]:
    """Returns the shares (0...1) of requested edges with a drawn edge within one pixel."""
    near = max_pool2d(drawn, 3, stride=1, padding=1)
    return (requested * near).sum((1, 2, 3)) / requested.sum((1, 2, 3)).clamp(min=1)


def controlnet() -> Edges:
    """Returns the measure of `controlnet-canny`."""
    return Edges("controlnet-canny", 0.8, 0.3)


def t2i_adapter() -> Edges:
    """Returns the measure of `t2i-canny`."""
    return Edges("t2i-canny", 0.7, 0.3)


def control_lora() -> Edges:
    """Returns the measure of `control-lora-canny`."""
    return Edges("control-lora-canny", 0.75, 0.25)
