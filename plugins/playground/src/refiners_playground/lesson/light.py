"""The lesson of light: objects under a light from one side, beside the same objects cut out."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_playground.caption import plain_caption
from refiners_playground.lesson.example import Lesson, in_bytes
from refiners_playground.lesson.mixture import mixed
from refiners_playground.scene import SIZE, Scene, draw

LIGHTS: Final[Mapping[str, tuple[float, float]]] = {
    **{"left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0)},
}
"""The direction of each light, rightwards and downwards, by the side that it comes from."""
DIMMEST: Final = 0.35
"""The brightness (0...1) at the side that is far from the light."""
GREY: Final = 127 / 255
"""The level around an object that is cut out, as IC-Light reads it."""


def relit(count: int = 16000) -> Lesson:
    """Returns lit scenes, with the flat object of each on grey as the condition `""`.

    The captions name shape, colour, background and the side of the light.

    Args:
        count: The number of scenes.
    """
    scenes, _ = mixed(count, (("canonical", 1), ("placed", 1)))
    sides = sides_in_turn(count)

    def drawn(rows: Sequence[int]) -> Tensor:
        lights = directions([sides[row] for row in rows])
        return lit(draw([scenes[row] for row in rows]), lights)

    def caption(index: int, random: Random) -> str:
        return lit_caption(scenes[index], sides[index])

    cut = in_bytes(cut_out, scenes)
    return Lesson(f"light {count}", in_bytes(drawn, range(count)), caption, {"": cut})


def sides_in_turn(count: int) -> list[str]:
    """Returns a side for each of several pictures, each as often as the others."""
    return [[*LIGHTS][index % len(LIGHTS)] for index in range(count)]


def directions(sides: Sequence[str]) -> Float[Tensor, "batch 2"]:
    """Returns the directions of lights from some sides, rightwards and downwards."""
    return torch.tensor([LIGHTS[side] for side in sides])


def lit_caption(scene: Scene, side: str) -> str:
    """Returns a caption with shape, colour, background and the side that light comes from."""
    return f"{plain_caption(scene)}, light from the {side}"


def lit(
    pixels: Float[Tensor, "batch 3 size size"], lights: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch 3 size size"]:
    """Returns pictures under a light: full brightness at its side, falling linearly.

    Args:
        pixels: Pictures in 0...1.
        lights: The direction of the light of each, rightwards and downwards, of length 1.
    """
    size = pixels.shape[-1]
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    along = lights[:, 0, None, None] * line + lights[:, 1, None, None] * line[:, None]
    return pixels * torch.lerp(torch.tensor(DIMMEST), torch.tensor(1.0), (along[:, None] + 1) / 2)


def cut_out(scenes: Sequence[Scene], size: int = SIZE) -> Float[Tensor, "batch 3 size size"]:
    """Draws the objects of scenes on grey, without light and background.

    Args:
        scenes: The scenes.
        size: Width and height in pixels.
    """
    white, black = (
        draw([Scene(scene.items, name, style=scene.style) for scene in scenes], size)
        for name in ("white", "black")
    )
    corner = (white - black)[:, :, :1, :1]
    around = ((white - black) / corner.clamp(min=0.1)).clamp(0, 1)
    return black + around * (GREY - black[:, :, :1, :1])


def light_side(
    pixels: Float[Tensor, "batch 3 size size"], flat: Float[Tensor, "batch 3 size size"]
) -> list[str]:
    """Returns the side from which the light in each picture comes, as a program reads it.

    The brightness of each pixel relative to the same scene without light is fitted by a plane, in
    which dark colours count less. A picture without light has a side by chance.

    Args:
        pixels: Pictures in 0...1.
        flat: The same scenes as `draw` shows them.
    """
    size = pixels.shape[-1]
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    flat = flat.to(pixels)
    weight = flat.square().sum(1)
    gain = (pixels * flat).sum(1) / weight.clamp(min=1e-3)
    slopes: list[Tensor] = []
    for axis in (line.expand(size, size), line[:, None].expand(size, size)):
        axis = axis.to(pixels)
        mean = (weight * axis).sum((1, 2)) / weight.sum((1, 2))
        slopes.append((weight * gain * (axis - mean[:, None, None])).sum((1, 2)))
    across, down = slopes
    chosen = torch.stack([-across, across, -down, down], 1).argmax(1)
    return [list(LIGHTS)[row] for row in chosen.tolist()]
