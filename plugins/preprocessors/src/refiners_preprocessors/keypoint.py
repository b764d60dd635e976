"""Draws the keypoints of people as the pose networks of OpenPose and ControlNet see them."""

import math
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from refiners_core.errors import ConditionError
from refiners_preprocessors.picture import Size, number, sides, whole

JOINTS: Final = (
    *("nose", "neck"),
    *("right shoulder", "right elbow", "right wrist"),
    *("left shoulder", "left elbow", "left wrist"),
    *("right hip", "right knee", "right ankle"),
    *("left hip", "left knee", "left ankle"),
    *("right eye", "left eye", "right ear", "left ear"),
)
"""The joints of a person in OpenPose's order of 18."""
_LIMBS: Final = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
"""The joints that each limb connects."""
_COLOURS: Final = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
"""The colour of each joint; a limb has that of the joint with its number, darkened."""
_DARKENED: Final = 0.6
_FARTHEST: Final = 4.0
"""The largest coordinate that is taken for a share of a side rather than for pixels."""


def draw_keypoints(
    people: Any,
    /,
    *,
    threshold: float = 0.3,
    width: int = 4,
    size: Size | None = None,
) -> Image.Image:
    """Returns a picture of the keypoints of people, in OpenPose's colours on black.

    Args:
        people: An array (people, 18, 2) or (people, 18, 3), or without the first axis for a single
            person. A row is a joint in the order of `JOINTS`: x and y as shares of width and
            height, 0...1 within the picture, and optionally a confidence in 0...1. NaN marks a
            joint that is missing.
        threshold: The confidence, in 0...1, below which a joint is missing.
        width: Half the width of a limb and the radius of a joint, in 1...100 pixels.
        size: Width and height of the picture in pixels; required.

    Raises:
        ConditionError: The value is not an array of keypoints, the size is missing, or a number is
            out of range.
    """
    threshold, width = number("threshold", threshold, 0, 1, 0.3), whole("width", width, 1, 100, 4)
    joints = _checked(people)
    shape = sides(size)
    if shape is None:
        raise ConditionError(
            "the size of the picture in which keypoints are drawn is missing.",
            hint="Try draw_keypoints(people, size=(512, 512)).",
        )
    rows, columns = shape
    canvas = np.zeros((rows, columns, 3), np.uint8)
    for person in joints:
        is_seen = np.isfinite(person).all(1) & (person[:, 2:] >= threshold).all(1)
        places = [
            (float(x) * columns, float(y) * rows) if seen else None
            for (x, y), seen in zip(person[:, :2], is_seen, strict=True)
        ]
        _draw(canvas, places, width)
    return Image.fromarray(canvas)


def _draw(canvas: Any, places: list[tuple[float, float] | None], width: int) -> None:
    """Draws one person: limbs as ellipses, then joints as discs."""
    for (first, second), colour in zip(_LIMBS, _COLOURS, strict=False):
        start, end = places[first], places[second]
        if start is None or end is None:
            continue
        across, down = end[0] - start[0], end[1] - start[1]
        centre = (int((start[0] + end[0]) / 2), int((start[1] + end[1]) / 2))
        axes = (int(math.hypot(across, down) / 2), width)
        angle = int(math.degrees(math.atan2(down, across)))
        outline = np.array(cv2.ellipse2Poly(centre, axes, angle, 0, 360, 1))
        cv2.fillConvexPoly(canvas, outline, [int(level * _DARKENED) for level in colour])
    for place, colour in zip(places, _COLOURS, strict=True):
        if place is not None:
            cv2.circle(canvas, (int(place[0]), int(place[1])), width, colour, thickness=-1)


def _checked(people: Any) -> Float[np.ndarray, "people 18 numbers"]:
    """Returns keypoints as an array with an axis of people.

    Raises:
        ConditionError: The value is not an array of keypoints.
    """
    if isinstance(people, Image.Image):
        raise ConditionError(
            "keypoints are drawn from an array, and a picture is given.",
            hint="Pass keypoints (people, 18, 2), or install a package that provides the "
            "preprocessor openpose, which finds them.",
        )
    if isinstance(people, Tensor):
        people = people.detach().float().cpu().numpy()
    try:
        array: Any = np.asarray(people, np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] != len(JOINTS) or array.shape[2] not in (2, 3):
        raise ConditionError(
            "keypoints are an array (people, 18, 2) or (people, 18, 3); this is "
            f"{_described(people)}.",
            hint="Pass the joints in OpenPose's order, NaN where one is missing.",
        )
    if bool((np.abs(np.nan_to_num(array[:, :, :2])) > _FARTHEST).any()):
        raise ConditionError(
            "keypoints are shares of width and height; these are pixels.",
            hint="Divide them: keypoints / (width, height).",
        )
    return array


def _described(value: Any) -> str:
    shape = np.shape(value) if isinstance(value, np.ndarray | list | tuple) else None
    return f"a {type(value).__name__}" if shape is None else f"of shape {shape}"
