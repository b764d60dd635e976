"""The five keypoints of a face, drawn as InstantID's ControlNet expects them."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_core.picture import to_pixels

COLOURS: Final = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1))
"""The colours of left eye, right eye, nose, left and right corner of the mouth."""
NOSE: Final = 2
LIMBS: Final = (0, 1, 3, 4)
"""The points that a limb joins to the nose, in the order of painting."""
DARKENED: Final = 0.6
"""The brightness of limbs, as in the released code."""
_HINT: Final = (
    "Pass five points (x, y) in pixels of the generated picture: left eye, right eye, nose, left "
    "and right corner of the mouth as they appear; or a picture of them."
)


@dataclass(frozen=True)
class Pen:
    """How keypoints are drawn; the defaults are those of the released code, whatever the size of
    the picture."""

    radius: float = 10
    """The radius of a point in pixels."""
    half_width: float = 4
    """Half the width of a limb in pixels."""


RELEASED: Final = Pen()


def keypoint_pixels(
    keypoints: Any, size: tuple[int, int], adapter: str, pen: Pen = RELEASED
) -> Float[Tensor, "count 3 height width"]:
    """Returns the pixels that the ControlNet reads, in 0...1.

    Args:
        keypoints: Five points (x, y) in pixels of the generated picture, from its upper left
            corner, or five per picture; or a drawing of them, or one per picture, which is
            resized.
        size: Height and width of the generated pictures.
        adapter: The name of the adapter, for messages.
        pen: How points are drawn.

    Raises:
        ConditionError: The value is neither points nor a picture, or a point lies outside the
            picture.
    """
    if _is_picture(keypoints):
        return to_pixels(keypoints, size)
    points = _points(keypoints, adapter)
    height, width = size
    for x, y in points.flatten(0, 1).tolist():
        if not (0 <= x < width and 0 <= y < height):
            raise ConditionError(
                f"a keypoint for {adapter} lies at ({x:g}, {y:g}), outside the picture of {width} "
                f"x {height} pixels.",
                hint=f"Give x from 0 to {width - 1} and y from 0 to {height - 1}.",
            )
    return torch.stack([draw(face, size, pen) for face in points])


def draw(
    points: Float[Tensor, "5 2"], size: tuple[int, int], pen: Pen = RELEASED
) -> Float[Tensor, "3 height width"]:
    """Draws the five points of a face, in 0...1: a limb from each to the nose, discs over them.

    Args:
        points: Coordinates x and y in pixels; parts outside the picture are cut off.
        size: Height and width.
        pen: The sizes of points and limbs.
    """
    height, width = size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.zeros(3, height, width)
    nose = points[NOSE].tolist()
    for index in LIMBS:
        ends = (points[index].tolist(), nose)
        inside = _limb(x, y, ends, pen.half_width)
        pixels[:, inside] = DARKENED * torch.tensor(COLOURS[index], dtype=torch.float32)[:, None]
    for (left, top), colour in zip(points.tolist(), COLOURS, strict=True):
        inside = (x - int(left)) ** 2 + (y - int(top)) ** 2 <= pen.radius**2
        pixels[:, inside] = torch.tensor(colour, dtype=torch.float32)[:, None]
    return pixels


def _limb(x: Tensor, y: Tensor, ends: tuple[list[float], list[float]], half_width: float) -> Tensor:
    """Returns a mask of the pixels in the ellipse between two points.

    Centre, length and angle are rounded to whole numbers, as in the released drawings. Half a pixel
    more on each side approximates the rim that OpenCV paints; about 1 % of the painted pixels
    differ.
    """
    (left, top), (right, bottom) = ends
    half = int(math.dist(*ends) / 2) + 0.5
    angle = math.radians(int(math.degrees(math.atan2(top - bottom, left - right))))
    dx, dy = x - int((left + right) / 2), y - int((top + bottom) / 2)
    along = dx * math.cos(angle) + dy * math.sin(angle)
    across = dy * math.cos(angle) - dx * math.sin(angle)
    return (along / half) ** 2 + (across / (half_width + 0.5)) ** 2 <= 1


def _is_picture(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return _is_picture(value[0])
    return isinstance(value, Image.Image) or (
        isinstance(value, Tensor) and value.ndim in (3, 4) and value.shape[-1] != 2
    )


def _points(value: Any, adapter: str) -> Float[Tensor, "count 5 2"]:
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiu" or array.shape[-2:] != (5, 2) or array.ndim not in (2, 3):
        is_numeric = array.dtype.kind in "fiu"
        given = f"the shape {list(array.shape)}" if is_numeric else f"a {type(value).__name__}"
        raise ConditionError(
            f"the keypoints for {adapter} are five points (x, y), not {given}.", hint=_HINT
        )
    points = torch.from_numpy(array.astype(np.float64)).reshape(-1, 5, 2)
    if not bool(points.isfinite().all()):
        raise ConditionError(f"a keypoint for {adapter} is not a finite number.", hint=_HINT)
    return points
