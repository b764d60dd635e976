"""Edges of a picture: thin ones by Canny, soft ones by gradients at several scales."""

from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image

from refiners_core.errors import ConditionError
from refiners_preprocessors.picture import Size, number, to_bytes, to_grey_image

_STEEPEST: Final = 2040.0
"""The largest gradient of bytes that Canny measures: the sum over both axes of 4 x 255."""
_SCALES: Final = (1.0, 2.0, 4.0)
"""The standard deviations, in pixels, of the blurs before gradients are taken."""
_SHARE: Final = 99.0
"""The percentile of the gradients that becomes white."""
_FAINTEST: Final = 16.0
"""The gradient, in levels per pixel, below which no edge is white, so that noise stays dark."""


def canny(
    picture: Any, /, *, low: float = 100, high: float = 200, size: Size | None = None
) -> Image.Image:
    """Returns the edges of a picture, one pixel wide, white on black.

    J. Canny, "A Computational Approach to Edge Detection", 1986; OpenCV's, with the thresholds with
    which ControlNet was trained.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        low: The gradient, in 0...2040 levels, from which a pixel continues an edge.
        high: The gradient, in 0...2040 levels, from which a pixel begins an edge; at least `low`.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or a threshold is out of range.
    """
    low, high = number("low", low, 0, _STEEPEST, 100), number("high", high, 0, _STEEPEST, 200)
    if low > high:
        raise ConditionError(
            f"low is at most high; they are {low:g} and {high:g}.",
            hint=f"Try low={high:g}, high={low:g}.",
        )
    return Image.fromarray(cv2.Canny(to_bytes(picture, size), low, high))


def soft_edge(picture: Any, /, *, size: Size | None = None) -> Image.Image:
    """Returns the edges of a picture, white where strong and grey where faint, on black.

    A filter that stands in for networks such as HED and PiDiNet.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture.
    """
    return to_grey_image(edge_strength(picture, size))


def edge_strength(picture: Any, size: Size | None) -> Float[np.ndarray, "height width"]:
    """Returns the strength of edges in 0...1.

    The gradient of the strongest colour channel, times the scale, averaged over blurs of 1, 2 and 4
    pixels, and divided by its 99th percentile in the picture.

    Args:
        picture: A picture.
        size: Width and height to which it is resized first.

    Raises:
        ConditionError: The value is not one picture.
    """
    levels = to_bytes(picture, size).astype(np.float32)
    total = np.zeros(levels.shape[:2], np.float32)
    for sigma in _SCALES:
        blurred = cv2.GaussianBlur(levels, (0, 0), sigma)
        across = cv2.Sobel(blurred, cv2.CV_32F, 1, 0, ksize=3) / 8
        down = cv2.Sobel(blurred, cv2.CV_32F, 0, 1, ksize=3) / 8
        total += sigma * np.hypot(across, down).max(axis=2) / len(_SCALES)
    return (total / max(float(np.percentile(total, _SHARE)), _FAINTEST)).clip(0, 1)
