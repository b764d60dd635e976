"""Image prompts on the playground change pictures in the direction that is asked for."""

from typing import Any

import pytest
import refiners
import torch
from refiners_playground.edge import edges
from refiners_playground.scene import Item, Scene, draw
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from refiners_core import Condition

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SCENES = [
    Scene((Item("heart", colour, radius=0.5, x=0.3),), background=background)
    for colour, background in zip(COLOURS, reversed(COLOURS), strict=True)
]
PICTURES = draw(SCENES)
OTHERS = PICTURES.roll(3, 0)


class Stage:
    """The playground, which wears its image prompt."""

    def __init__(self) -> None:
        self.model = refiners.load_model("playground")
        self.adapter = refiners.load_adapter("ip-adapter", self.model)

    def drawn(self, scale: Any = 1.0, **value: Any) -> Tensor:
        """Returns stars, each prompted with a picture as well."""
        shown = {"picture": list(PICTURES), **value}
        return self.model.generate(
            ["a star"] * len(PICTURES),
            conditions={self.adapter: Condition(shown, scale=scale)},
            seed=3,
            steps=6,
            output="tensor",
            progress=False,
        )


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


def colour_distance(pixels: Tensor, pictures: Tensor) -> float:
    """Returns how far apart the mean colours of pictures are."""
    return float((pixels.mean((2, 3)) - pictures.mean((2, 3))).norm(dim=1).mean())


def layout_agreement(pixels: Tensor, pictures: Tensor) -> float:
    """Returns how well edges lie in the same places, in -1...1."""
    maps = [adaptive_avg_pool2d(edges(x).float(), 8).flatten(1) for x in (pixels, pictures)]
    return float(cosine_similarity(*(x - x.mean(1, keepdim=True) for x in maps)).mean())


def test_style_takes_colours_and_layout_takes_places(stage: Stage):
    style, layout, none = (stage.drawn(scale) for scale in ({"style": 1.0}, {"layout": 1.0}, 0.0))
    assert colour_distance(style, PICTURES) < colour_distance(layout, PICTURES) - 0.05
    agreement = [layout_agreement(pixels, PICTURES) for pixels in (layout, style, none)]
    assert agreement[0] > max(agreement[1:])


def test_a_negative_picture_pushes_colours_away(stage: Stage):
    plain = stage.drawn(0.3)
    pushed = stage.drawn(0.3, negative=list(OTHERS))
    assert colour_distance(pushed, OTHERS) > colour_distance(plain, OTHERS) + 0.02
    assert colour_distance(pushed, PICTURES) < colour_distance(pushed, OTHERS) - 0.2


def test_masks_divide_a_picture_between_two(stage: Stage):
    left = torch.zeros(1, 1, 64, 64)
    left[..., :32] = 1
    pairs = [[a, b] for a, b in zip(PICTURES, OTHERS, strict=True)]
    pixels = stage.drawn(picture=pairs, masks=[left, 1 - left])
    halves = pixels[..., :28], pixels[..., 36:]
    right = [colour_distance(half, x) for half, x in zip(halves, (PICTURES, OTHERS), strict=True)]
    swapped = [colour_distance(half, x) for half, x in zip(halves, (OTHERS, PICTURES), strict=True)]
    assert max(right) < min(swapped) / 2
