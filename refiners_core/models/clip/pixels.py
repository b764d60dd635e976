"""The preprocessing of CLIP's image encoders: resize, crop to a square, normalise."""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from refiners_core.picture import to_rows

MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
"""The mean and deviation of each channel in CLIP's training data, in 0...1 (released code)."""


def clip_pixels(picture: Any, size: int) -> Float[Tensor, "count 3 size size"]:
    """Returns pictures resized (bicubic), cropped to their centre square and normalised for CLIP.

    Args:
        picture: A picture, or a list of pictures, of any sizes.
        size: Height and width in pixels.

    Raises:
        ConditionError: The value is not a picture.
    """
    return normalised_squares(picture, size, MEAN, DEVIATION, size)


def normalised_squares(
    picture: Any,
    size: int,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
    shortest: int,
) -> Float[Tensor, "count 3 size size"]:
    """Returns pictures resized (bicubic), cropped to a centre square and normalised.

    Args:
        picture: A picture, or a list of pictures, of any sizes.
        size: The height and width of the crop in pixels.
        mean: The mean of each channel in the data of training, in 0...1.
        deviation: The deviation of each channel.
        shortest: The shortest side of a resized picture in pixels, at least `size`.

    Raises:
        ConditionError: The value is not a picture.
    """
    shift, spread = (
        torch.tensor(value, dtype=torch.float32, device="cpu").view(3, 1, 1)
        for value in (mean, deviation)
    )
    rows = to_rows(picture)
    if len({row.shape for row in rows}) == 1:  # at once: one by one is slow
        rows = [torch.cat(rows)]
    squares = torch.cat([_square(pixels, size, shortest) for pixels in rows])
    return (squares - shift) / spread


def _square(
    pixels: Float[Tensor, "count 3 height width"], size: int, wanted: int
) -> Float[Tensor, "count 3 size size"]:
    height, width = pixels.shape[-2:]
    shortest = min(height, width)
    if shortest != wanted:
        sides = (round(height * wanted / shortest), round(width * wanted / shortest))
        pixels = interpolate(pixels, sides, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]
