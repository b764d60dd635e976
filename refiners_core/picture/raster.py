"""Image files as anybody sees them: upright, of every bit depth, on paper where they are clear."""

from typing import Any, Final

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

WHITE: Final = 1.0
BLACK: Final = 0.0
_DEEP: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
"""The modes of Pillow with more than 8 bits a channel."""
_CLEAR: Final = {"RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""What the modes with an alpha channel are converted to, straight first if premultiplied."""
_FULL: Final = 65535.0


def upright(image: Image.Image) -> Image.Image:
    """Returns a picture as it is viewed, turned and mirrored as its EXIF says; the current frame
    of an animation."""
    return ImageOps.exif_transpose(image)


def is_clear(image: Image.Image) -> bool:
    """Whether a picture has parts that may be seen through."""
    return image.mode in _CLEAR or "transparency" in image.info


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has more than 8 bits a channel."""
    return image.mode in _DEEP


def levels_of(image: Image.Image, paper: float) -> Float[np.ndarray, "height width 3"]:
    """Returns the levels of a picture in 0...1: the full range of its mode, upright.

    16-bit pictures and whole numbers reach to 65535, floating-point ones to 1; others to 255.

    Args:
        image: A picture of any mode.
        paper: What is seen through what is clear, in 0...1: two pictures that look alike on it are
            alike.

    Raises:
        ValueError: Its mode cannot be converted, or its file is cut short.
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
    """Returns the levels of an array as levels of a picture, in 0...1.

    Args:
        array: `(height, width)` or `(height, width, channels)`, of 1 to 4 channels; bytes to 255,
            16 bits to 65535, truth values, or floating-point numbers in 0...1.
        paper: What is seen through what is clear.

    Raises:
        ValueError: It has another shape or type.
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
    """Returns what is seen of levels with alpha on paper of one level."""
    alpha = levels[:, :, 3:]
    return levels[:, :, :3] * alpha + paper * (1 - alpha)
