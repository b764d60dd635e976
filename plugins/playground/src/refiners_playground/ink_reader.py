"""Recognises ink drawings: an object of one colour inside a thick line of ink.

Nothing is trained. The background is the median colour of the border; the pixels that differ from
it are the object, whose rim and core are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from refiners_playground.scene import COLOURS, INKS

APART = 0.25
"""The Euclidean distance (RGB in 0...1) above which colours count as different."""
RIM = (1.4, 2.9)
"""The depths in the object at which the rim begins and ends, in pixels. A line of ink is four
pixels wide, and the autoencoder blurs the outermost."""
CORE = 4.5
"""The smallest depth of the core in pixels."""
DEEPEST = 0.75
"""The core begins at this share of the greatest depth, if that is deeper than `CORE`."""
COVERED = 0.8
"""The share of the rim that must be ink; the marks of a fill cover at most half of it."""


@dataclass(frozen=True)
class Reading:
    """The style and the colours of one picture."""

    is_inked: bool
    colour: str
    background: str


def read_ink(pixels: Float[Tensor, "batch 3 height width"]) -> list[Reading]:
    """Reads the style, the colour of the object inside its rim, and the background colour.

    Args:
        pixels: Pictures in 0...1 with one large object each, 64 pixels wide and high.
    """
    return [_read(picture) for picture in pixels.float()]


def _read(picture: Float[Tensor, "3 height width"]) -> Reading:
    border = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], 1)
    ground = border.median(1).values
    depth = _depth(_gap(picture, ground) > APART)
    deepest = float(depth.max())
    rim = (depth >= RIM[0]) & (depth <= RIM[1])
    core = depth >= max(CORE, DEEPEST * deepest)
    if not core.any():
        core = depth == deepest
        return Reading(False, _name(picture[:, core].median(1).values), _name(ground))
    inside = picture[:, core].median(1).values
    inks = [ink for ink in map(torch.tensor, INKS) if (ink - inside).norm() > APART]
    to_ink = torch.stack([_gap(picture, ink) for ink in inks]).amin(0)
    is_line = (to_ink < _gap(picture, inside)) & rim
    is_inked = int(is_line.sum()) >= COVERED * int(rim.sum())
    return Reading(is_inked, _name(inside), _name(ground))


def _gap(
    picture: Float[Tensor, "3 height width"], colour: Float[Tensor, " 3"]
) -> Float[Tensor, "height width"]:
    return (picture - colour.view(3, 1, 1)).norm(dim=0)


def _depth(mask: Bool[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Returns the distance in pixels from each pixel of a mask to the nearest outside it."""
    depth = torch.zeros(mask.shape)
    grown = max_pool2d(mask.float().unsqueeze(0), 3, stride=1, padding=1)[0] > 0
    outside = (grown & ~mask).nonzero().float()  # the nearest one always borders the mask
    if len(outside):
        depth[mask] = torch.cdist(mask.nonzero().float(), outside).amin(1)
    return depth


def _nearest(colour: Float[Tensor, " 3"], choices: Sequence[Sequence[float]]) -> int:
    return int((torch.tensor(choices) - colour).norm(dim=1).argmin())


def _name(colour: Float[Tensor, " 3"]) -> str:
    return list(COLOURS)[_nearest(colour, list(COLOURS.values()))]
