"""How a picture becomes one of the size that is trained: resized, flipped, cropped."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Crop = Literal["center", "random"]


@dataclass(frozen=True)
class Frame:
    """The part of one picture that is shown, as pixels of the resized and flipped picture."""

    original: tuple[int, int]
    """Height and width in the file."""
    resized: tuple[int, int]
    """Height and width before the crop."""
    is_flipped: bool
    """Whether left and right are exchanged, before the crop."""
    corner: tuple[int, int]
    """The top and left edge of the crop, in the flipped picture."""
    size: tuple[int, int]
    """Height and width of the crop."""

    def picture(
        self, pixels: Float[Tensor, "channels height width"]
    ) -> Float[Tensor, "channels new_height new_width"]:
        """Returns the framed pixels of a picture in 0...1 (bicubic, antialiased)."""
        return self._cropped(_resized(pixels, self.resized, "bicubic"))

    def mask(
        self, mask: Float[Tensor, "1 height width"]
    ) -> Float[Tensor, "1 new_height new_width"]:
        """Returns the framed mask of the picture, which may have another size than the picture."""
        return self._cropped(_resized(mask, self.resized, "bilinear"))

    def _cropped(self, pixels: Tensor) -> Tensor:
        flipped = pixels.flip(-1) if self.is_flipped else pixels
        (top, left), (height, width) = self.corner, self.size
        return flipped[..., top : top + height, left : left + width].contiguous()


@dataclass(frozen=True)
class Framing:
    """How pictures are framed: resized to cover the size, flipped by chance, cropped."""

    crop: Crop = "center"
    """Where the crop is."""
    flip: float = 0.0
    """The share (0...1) of pictures in which left and right are exchanged."""

    def frame(self, original: tuple[int, int], size: tuple[int, int], random: Random) -> Frame:
        """Returns the frame of one picture.

        The picture is flipped before it is cropped, so that the corner is that of the pixels shown.

        Args:
            original: Height and width of the picture.
            size: Height and width to show.
            random: The source of randomness of this example and epoch.
        """
        ratio = max(size[0] / original[0], size[1] / original[1])
        height, width = (
            max(wanted, round(side * ratio)) for side, wanted in zip(original, size, strict=True)
        )
        is_flipped = random.random() < self.flip
        spare = height - size[0], width - size[1]
        if self.crop == "random":
            corner = random.randint(0, spare[0]), random.randint(0, spare[1])
        else:
            corner = spare[0] // 2, spare[1] // 2
        return Frame(original, (height, width), is_flipped, corner, size)


def _resized(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels[None], size, mode=mode, antialias=True)[0].clamp(0, 1)
