"""Pictures as arrays of bytes, and the checks of the numbers that preprocessors take."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from refiners_core import option
from refiners_core.errors import ConditionError
from refiners_core.picture import to_pixels

Size = tuple[int, int]
"""Width and height in pixels."""
_LARGEST: Final = 16_384


def to_bytes(picture: Any, size: Size | None) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the levels of one picture, 0...255, in the order red, green, blue.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        size: Width and height to which it is resized first; None keeps its size.

    Raises:
        ConditionError: The value is not one picture, or the size is not one.
    """
    pixels = to_pixels(picture, sides(size))
    if len(pixels) != 1:
        raise ConditionError(
            f"a preprocessor takes one picture; it is given {len(pixels)}.",
            hint="Call it for each: [canny(picture) for picture in pictures].",
        )
    return (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()


def to_grey_image(levels: Float[np.ndarray, "height width"]) -> Image.Image:
    """Returns levels in 0...1 as an image of one channel; values outside are clamped."""
    return Image.fromarray((levels.clip(0, 1) * 255).round().astype(np.uint8))


def sides(size: Any) -> tuple[int, int] | None:
    """Returns the height and the width of a size; None for None.

    Args:
        size: Width and height in 1...16384 pixels.

    Raises:
        ConditionError: The value is not a size.
    """
    if size is None:
        return None
    pair: list[Any] = [*size] if isinstance(size, Sequence) else []
    if len(pair) == 2 and all(option.is_whole(side) and 1 <= side <= _LARGEST for side in pair):
        return int(pair[1]), int(pair[0])
    raise ConditionError(
        f"size is a width and a height in 1...{_LARGEST} pixels, not {size!r}.",
        hint="Try size=(512, 512).",
    )


def number(name: str, value: Any, low: float, high: float, default: float) -> float:
    """Returns a finite number within bounds, both included.

    Raises:
        ConditionError: The value is another one.
    """
    return option.number(name, value, default, low=low, high=high, error=ConditionError)


def whole(name: str, value: Any, low: int, high: int, default: int) -> int:
    """Returns a whole number within bounds, both included.

    Raises:
        ConditionError: The value is another one.
    """
    return option.whole(name, value, default, low=low, high=high, error=ConditionError)
