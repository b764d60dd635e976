"""Images as arrays: upright, of every bit depth, transparent parts laid on a background."""

from typing import Any, Final

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

WHITE: Final = 1.0
BLACK: Final = 0.0
_DEEP: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""The modes of Pillow with more than 8 bits per channel."""
_CLEAR: Final = {"RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""The modes with an alpha channel, each with the mode to convert it to; premultiplied modes go
through their straight mode."""
_FULL: Final = 65535.0


def upright(image: Image.Image) -> Image.Image:
    """Returns an image turned and mirrored as its EXIF requires; for an animation, the current
    frame."""
    return ImageOps.exif_transpose(image)


def is_clear(image: Image.Image) -> bool:
    """Whether an image may have transparent parts."""
    return image.mode in _CLEAR or "transparency" in image.info


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits per channel."""
    return image.mode in _DEEP


def levels_of(image: Image.Image, paper: float) -> Float[np.ndarray, "height width 3"]:
    """Returns the levels of an upright image in 0...1, scaled by the range of its mode.

    The range of 16-bit and integer modes ends at 65535, that of floating-point modes at 1, that of
    all others at 255.

    Args:
        image: An image of any mode.
        paper: The level of the background behind transparent parts, in 0...1.

    Raises:
        ValueError: The mode cannot be converted, or the file is truncated.
    """
    try:
        image = upright(image)
        if image.mode in _DEEP:
            deep = np.asarray(image).astype(np.float32)
            deep = deep if image.mode == "F" else deep / _FULL
            return np.repeat(deep[:, :, None], 3, axis=2)
        if is_clear(image):
            if image.mode in ("La", "RGBa"):
                image = image.convert(_CLEAR[image.mode])
            return laid_on(np.asarray(image.convert("RGBA"), np.float32) / 255, paper)
        return np.asarray(image.convert("RGB"), np.float32) / 255
    except (OSError, SyntaxError) as error:
        raise ValueError(f"it cannot be read ({error})") from error


def levels_of_array(array: Any, paper: float) -> Float[np.ndarray, "height width 3"]:
    """Returns the levels of an array in 0...1, with three channels.

    Args:
        array: `(height, width)` or `(height, width, channels)`, with 1 to 4 channels; uint8 up to
            255, uint16 up to 65535, bool, or floating-point numbers in 0...1.
        paper: The level of the background behind transparent parts, in 0...1.

    Raises:
        ValueError: The array has another shape or dtype.
    """
    planes = array[:, :, None] if array.ndim == 2 else array
    if planes.ndim != 3 or not 1 <= planes.shape[2] <= 4:
        raise ValueError(
            f"an array {list(array.shape)} is not (height, width) or (height, width, channels)"
        )
    tops: dict[str, float] = {"uint8": 255.0, "uint16": _FULL, "bool": 1.0}
    top = 1.0 if array.dtype.kind == "f" else tops.get(array.dtype.name)
    if top is None:
        raise ValueError(f"numbers of {array.dtype} have no known range")
    levels = planes.astype(np.float32) / top
    if levels.shape[2] in (1, 2):
        levels = np.concatenate([np.repeat(levels[:, :, :1], 3, axis=2), levels[:, :, 1:]], axis=2)
    return laid_on(levels, paper) if levels.shape[2] == 4 else levels


def laid_on(levels: Any, paper: float) -> Float[np.ndarray, "height width 3"]:
    """Returns levels with an alpha channel composited onto a background of one level."""
    alpha = levels[:, :, 3:]
    return levels[:, :, :3] * alpha + paper * (1 - alpha)
