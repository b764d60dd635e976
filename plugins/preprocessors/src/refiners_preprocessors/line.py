"""Line drawings of a picture: thin lines by a difference of Gaussians, strokes as of a pen."""

from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Bool
from PIL import Image

from refiners_preprocessors.edge import edge_strength
from refiners_preprocessors.picture import Size, number, to_bytes, to_grey_image, whole

_RATIO: Final = 1.6
"""The ratio of the two blurs, for which their difference is near a Laplacian."""
_FAINTEST: Final = 0.03
"""The difference of the blurs, in 0...1, below which no line is white, so that noise stays dark."""
_SHARE: Final = 99.0
"""The percentile of the differences that becomes white."""
_SHARPNESS: Final = 3.0
"""The slope of the transition from no line to a line."""
_THRESHOLD: Final = 0.2
"""The share of the strongest lines below which nothing is drawn."""


def lineart(picture: Any, /, *, sigma: float = 1.5, size: Size | None = None) -> Image.Image:
    """Returns a line drawing of a picture, white on black.

    Lines run on the dark side of edges, by a difference of Gaussians with a soft threshold, in the
    colour channel where it is strongest: H. Winnemöller et al., "XDoG: An eXtended
    difference-of-Gaussians compendium", 2012, without its dark areas.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        sigma: The standard deviation of the narrow blur, in 0.3...20 pixels: about the width of
            the lines.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or `sigma` is out of range.
    """
    sigma = number("sigma", sigma, 0.3, 20, 1.5)
    levels = to_bytes(picture, size).astype(np.float32) / 255
    narrow, wide = (cv2.GaussianBlur(levels, (0, 0), s) for s in (sigma, _RATIO * sigma))
    strongest = np.abs(wide - narrow).argmax(axis=2)[:, :, None]
    lines = np.take_along_axis(wide - narrow, strongest, axis=2)[:, :, 0].clip(0)
    lines /= max(float(np.percentile(lines, _SHARE)), _FAINTEST)
    return to_grey_image(np.tanh(_SHARPNESS * (lines - _THRESHOLD).clip(0)))


def scribble(
    picture: Any,
    /,
    *,
    threshold: float = 0.3,
    width: int = 5,
    size: Size | None = None,
) -> Image.Image:
    """Returns the edges of a picture as strokes of one width, white on black.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        threshold: The strength of an edge, in 0...1, from which it is drawn.
        width: The width of the strokes in 1...50 pixels.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or a number is out of range.
    """
    threshold, width = number("threshold", threshold, 0, 1, 0.3), whole("width", width, 1, 50, 5)
    strokes = thinned(edge_strength(picture, size) > threshold).astype(np.uint8) * 255
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return Image.fromarray(cv2.dilate(strokes, pen))


def thinned(shape: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Returns the lines along the middle of a shape, one pixel wide and connected as it is.

    T. Y. Zhang and C. Y. Suen, "A Fast Parallel Algorithm for Thinning Digital Patterns", 1984;
    p2...p9 are the neighbours from the top clockwise.
    """
    image = np.pad(shape, 1)
    inner = image[1:-1, 1:-1]
    while True:
        before = inner.sum()
        for is_second in (False, True):
            rows = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
            height, width = shape.shape
            around = [image[y : y + height, x : x + width] for y, x in rows]
            p2, _, p4, _, p6, _, p8, _ = around
            count = np.sum(around, axis=0)
            starts = sum(
                ~first & second
                for first, second in zip(around, [*around[1:], around[0]], strict=True)
            )
            first, second = (
                (p2 & p4 & p8, p2 & p6 & p8)
                if is_second
                else (
                    p2 & p4 & p6,
                    p4 & p6 & p8,
                )
            )
            inner &= ~((count >= 2) & (count <= 6) & (starts == 1) & ~first & ~second)
        if inner.sum() == before:
            return inner.copy()
