"""The sizes of DINOv2's encoders."""

from dataclasses import dataclass

from refiners_core.errors import ModelError


@dataclass(frozen=True)
class DinoConfig:
    """The sizes of an encoder; the defaults are those of ViT-L/14.

    `width`, `inner_width`, `layers` and `heads` of the released ones: ViT-S 384, 1536, 12, 6; ViT-B
    768, 3072, 12, 12; ViT-L 1024, 4096, 24, 16; ViT-g, which alone is gated, 1536, 4096, 40, 24.

    Raises:
        ModelError: The patches do not tile the image.
    """

    image_size: int = 518
    """The height and width of the images of training in pixels, which fix the positions."""
    input_size: int = 224
    """The height and width to which pictures are cropped; positions are interpolated to it."""
    patch_size: int = 14
    """The height and width of a patch in pixels."""
    width: int = 1024
    """The features of a token."""
    inner_width: int = 4096
    """The features inside a feed-forward network, after gating."""
    layers: int = 24
    heads: int = 16
    is_gated: bool = False
    """Whether the feed-forward networks are SwiGLU."""
    eps: float = 1e-6
    """The number that layer norms add to the variance."""

    def __post_init__(self) -> None:
        for size in (self.image_size, self.input_size):
            if size < self.patch_size or size % self.patch_size:
                raise ModelError(
                    f"patches of {self.patch_size} pixels do not tile a side of {size}.",
                    hint=f"Try {max(1, round(size / self.patch_size)) * self.patch_size}.",
                )

    @property
    def grid(self) -> int:
        """The patches along a side of the images of training."""
        return self.image_size // self.patch_size
