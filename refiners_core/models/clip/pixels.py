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
    mean, deviation = (
        torch.tensor(value, dtype=torch.float32, device="cpu").view(3, 1, 1)
        for value in (MEAN, DEVIATION)
    )
    squares = torch.cat([_square(pixels, size) for pixels in to_rows(picture)])
    return (squares - mean) / deviation


def _square(pixels: Float[Tensor, "1 3 height width"], size: int) -> Float[Tensor, "1 3 size size"]:
    height, width = pixels.shape[-2:]
    shortest = min(height, width)
    if shortest != size:
        sides = (round(height * size / shortest), round(width * size / shortest))
        pixels = interpolate(pixels, sides, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (pixels.shape[-2] - size) // 2, (pixels.shape[-1] - size) // 2
    return pixels[..., top : top + size, left : left + size]
