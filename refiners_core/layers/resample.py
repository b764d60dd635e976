"""Downsampling and upsampling of feature maps."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refiners_core.layers.convolution import Convolution
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity, Parallel, UseContext


class Downsample(Chain):
    """Halves height and width by a strided convolution.

    Args:
        channels: Channels of the input and output.
        pads_end: Whether to pad with zeros only at the bottom and right, as autoencoders do,
            instead of on all sides.
    """

    def __init__(self, channels: int, *, pads_end: bool = False) -> None:
        conv = Convolution(channels, channels, stride=2, padding=0 if pads_end else 1)
        if pads_end:
            super().__init__(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=conv)
        else:
            super().__init__(conv=conv)


class Upsample(Chain):
    """Doubles height and width by nearest-neighbour interpolation, then convolves.

    Args:
        channels: Channels of the input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            repeat=nn.Upsample(scale_factor=2.0, mode="nearest"),
            conv=Convolution(channels, channels),
        )


class UpsampleLike(Chain):
    """Resizes a feature map to that of one in the context by nearest-neighbour interpolation, then
    convolves.

    That size is usually double; it differs where the downsampling rounded up.

    Args:
        channels: Channels of the input and output.
        like: The context key of the map with the target size.
    """

    def __init__(self, channels: int, like: str) -> None:
        super().__init__(
            sizes=Parallel(map=Identity(), like=UseContext(like)),
            resize=ResizeLike(),
            conv=Convolution(channels, channels),
        )


class ResizeLike(nn.Module):
    """Resizes a feature map to the height and width of another, by nearest neighbour."""

    def forward(
        self,
        x: Float[Tensor, "rows channels height width"],
        like: Float[Tensor, "like_rows like_channels new_height new_width"],
    ) -> Float[Tensor, "rows channels new_height new_width"]:
        """Resizes the first map to the size of the second."""
        return interpolate(x, size=like.shape[-2:], mode="nearest")
