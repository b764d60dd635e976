"""Pictures as arrays of bytes, and the checks of the numbers that preprocessors take."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from refiners_core.errors import ConditionError
from refiners_core.picture import to_pixels

Size = tuple[int, int]
"""Width and height in pixels."""


def to_bytes(picture: Any, size: Size | None) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the levels of one picture, 0...255, in the order red, green, blue.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        size: Width and height to which it is resized first; None keeps its size.

    Raises:
        ConditionError: The value is not one picture.
    """
    pixels = to_pixels(picture, None if size is None else (size[1], size[0]))
    if len(pixels) != 1:
        raise ConditionError(
            f"a preprocessor takes one picture; it is given {len(pixels)}.",
            hint="Call it for each: [canny(picture) for picture in pictures].",
        )
    return (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()


def to_grey_image(levels: Float[np.ndarray, "height width"]) -> Image.Image:
    """Returns levels in 0...1 as an image of one channel; values outside are clamped."""
    return Image.fromarray((levels.clip(0, 1) * 255).round().astype(np.uint8))


def number(name: str, value: Any, low: float, high: float, default: float) -> float:
    """Returns a finite number within bounds, both included.

    Raises:
        ConditionError: The value is another one.
    """
    is_number = not isinstance(value, bool) and isinstance(value, Real)
    converted = float(value) if is_number else math.nan
    if not low <= converted <= high:
        raise ConditionError(
            f"{name} is a number in {low:g}...{high:g}, not {value!r}.",
            hint=f"Try {name}={default:g}.",
        )
    return converted


def whole(name: str, value: Any, low: int, high: int, default: int) -> int:
    """Returns a whole number within bounds, both included.

    Raises:
        ConditionError: The value is another one.
    """
    is_whole = not isinstance(value, bool) and isinstance(value, Integral)
    converted = int(value) if is_whole else low - 1
    if not low <= converted <= high:
        raise ConditionError(
            f"{name} is a whole number in {low}...{high}, not {value!r}.",
            hint=f"Try {name}={default}.",
        )
    return converted
