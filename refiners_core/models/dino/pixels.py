"""The preprocessing of DINOv2: resize, crop to a square, normalise."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor

from refiners_core.models.clip.pixels import normalised_squares

MEAN: Final = (0.485, 0.456, 0.406)
DEVIATION: Final = (0.229, 0.224, 0.225)
"""The mean and deviation of each channel in ImageNet, in 0...1."""
MARGIN: Final = 256 / 224
"""The shortest side of a resized picture, as a share of the side of the crop."""


def dino_pixels(picture: Any, size: int) -> Float[Tensor, "count 3 size size"]:
    """Returns pictures resized (bicubic), cropped to a centre square and normalised for DINOv2.

    The shortest side is resized to 256 for a crop of 224 (released code).

    Args:
        picture: A picture, or a list of pictures, of any sizes.
        size: Height and width in pixels.

    Raises:
        ConditionError: The value is not a picture.
    """
    return normalised_squares(picture, size, MEAN, DEVIATION, round(size * MARGIN))
