"""The outlines of shapes, as signed distances.

Each outline takes points relative to the object's centre (x to the right, y downwards, in radii)
and returns the distance to the outline in radii, negative inside. Distances are exact near straight
edges and arcs, which suffices for one pixel of smoothing.
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

Field = Float[Tensor, "batch height width"]
Outline = Callable[[Tensor, Tensor], Tensor]

STAR_TIP = 1.1
STAR_NOTCH = 0.5
SECTOR_COSINE, SECTOR_SINE = math.cos(math.pi / 5), math.sin(math.pi / 5)
"""Of half the angle between two tips of the star."""
HEART_HALF_DIAGONAL = 0.83


def circle(x: Field, y: Field) -> Field:
    """Returns the distance to a circle of radius 0.95."""
    return torch.hypot(x, y) - 0.95


def square(x: Field, y: Field) -> Field:
    """Returns the distance to a square whose sides lie 0.8 from its centre."""
    return torch.maximum(x.abs(), y.abs()) - 0.8


def triangle(x: Field, y: Field) -> Field:
    """Returns the distance to an equilateral triangle that points upwards."""
    lifted = y - 0.2
    slope = math.sqrt(0.75) * x.abs() - 0.5 * lifted
    return torch.maximum(lifted, slope) - 0.55


def star(x: Field, y: Field) -> Field:
    """Returns the distance to a star of five points: one edge, folded ten times."""
    x = x.abs()
    for along, across in ((SECTOR_COSINE, -SECTOR_SINE), (-SECTOR_COSINE, -SECTOR_SINE)):
        beyond = 2 * (along * x + across * -y).clamp(min=0)
        x, y = x - beyond * along, y + beyond * across
    across, along = x.abs(), -y
    notch_along = STAR_NOTCH * SECTOR_COSINE
    notch_across = STAR_NOTCH * SECTOR_SINE
    length = math.hypot(notch_across, STAR_TIP - notch_along)
    return ((along - STAR_TIP) * notch_across + across * (STAR_TIP - notch_along)) / length


def ring(x: Field, y: Field) -> Field:
    """Returns the distance to a ring 0.5 thick with a hole of radius 0.45."""
    return (torch.hypot(x, y) - 0.7).abs() - 0.25


def cross(x: Field, y: Field) -> Field:
    """Returns the distance to an upright cross with arms 0.64 wide."""
    wide = torch.maximum(x.abs() - 0.95, y.abs() - 0.32)
    tall = torch.maximum(x.abs() - 0.32, y.abs() - 0.95)
    return torch.minimum(wide, tall)


def heart(x: Field, y: Field) -> Field:
    """Returns the distance to a heart: a square on its corner, with two half-discs on top."""
    half = HEART_HALF_DIAGONAL
    across, down = x.abs(), y - 0.1
    body = (across + down.abs() - half) / math.sqrt(2)
    lobe = torch.hypot(across - half / 2, down + half / 2) - half / math.sqrt(2)
    return torch.minimum(body, lobe)


def diamond(x: Field, y: Field) -> Field:
    """Returns the distance to a rhombus, 1.2 wide and 2 tall."""
    return (x.abs() + 0.6 * y.abs() - 0.6) / math.hypot(1.0, 0.6)


def crescent(x: Field, y: Field) -> Field:
    """Returns the distance to a crescent: a disc without a smaller disc at its right."""
    return torch.maximum(torch.hypot(x, y) - 0.95, 0.75 - torch.hypot(x - 0.45, y))


OUTLINES: Mapping[str, Outline] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
    "heart": heart,
    "diamond": diamond,
    "crescent": crescent,
}
