"""The eight outlines a scene can show, as signed distances.

Every outline takes points in the object's own frame (x to the right, y downwards, both divided by
the object's radius) and gives the distance to the outline in radii, negative inside. Distances
are exact near straight edges and arcs, which is all that one pixel of smoothing needs.
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
HEART_HALF_DIAGONAL = 0.83


def circle(x: Field, y: Field) -> Field:
    """A disc of radius 0.95."""
    return torch.hypot(x, y) - 0.95


def square(x: Field, y: Field) -> Field:
    """A square whose sides lie 0.8 from the middle."""
    return torch.maximum(x.abs(), y.abs()) - 0.8


def triangle(x: Field, y: Field) -> Field:
    """An equilateral triangle that points upwards, as the greatest of three half-planes."""
    lifted = y - 0.2
    slope = math.sqrt(0.75) * x.abs() - 0.5 * lifted
    return torch.maximum(lifted, slope) - 0.55


def star(x: Field, y: Field) -> Field:
    """A star of five points: one edge, folded around ten times."""
    sector = 2 * math.pi / 5
    angle = torch.remainder(torch.atan2(x, -y) + sector / 2, sector) - sector / 2
    radius = torch.hypot(x, y)
    along, across = radius * angle.cos(), radius * angle.sin().abs()
    notch_along = STAR_NOTCH * math.cos(sector / 2)
    notch_across = STAR_NOTCH * math.sin(sector / 2)
    length = math.hypot(notch_across, STAR_TIP - notch_along)
    return ((along - STAR_TIP) * notch_across + across * (STAR_TIP - notch_along)) / length


def ring(x: Field, y: Field) -> Field:
    """A ring 0.5 thick, whose hole is as wide as the ring is thick on both sides together."""
    return (torch.hypot(x, y) - 0.7).abs() - 0.25


def cross(x: Field, y: Field) -> Field:
    """An upright cross with arms 0.64 wide."""
    wide = torch.maximum(x.abs() - 0.95, y.abs() - 0.32)
    tall = torch.maximum(x.abs() - 0.32, y.abs() - 0.95)
    return torch.minimum(wide, tall)


def heart(x: Field, y: Field) -> Field:
    """A square on its corner, with a half-disc on each of its two upper sides."""
    half = HEART_HALF_DIAGONAL
    across, down = x.abs(), y - 0.1
    body = (across + down.abs() - half) / math.sqrt(2)
    lobe = torch.hypot(across - half / 2, down + half / 2) - half / math.sqrt(2)
    return torch.minimum(body, lobe)


def diamond(x: Field, y: Field) -> Field:
    """A rhombus, 1.2 wide and 2 tall."""
    return (x.abs() + 0.6 * y.abs() - 0.6) / math.hypot(1.0, 0.6)


OUTLINES: Mapping[str, Outline] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
    "heart": heart,
    "diamond": diamond,
}
