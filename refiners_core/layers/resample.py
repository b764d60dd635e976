"""Halving and doubling the size of maps."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from refiners_core.layers.convolution import Convolution
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity, Parallel, UseContext


class Downsample(Chain):
    """Halves height and width by a convolution.

    Args:
        channels: Channels of the map, in and out.
        pads_end: Whether zeros are added only below and to the right, as autoencoders do, instead
            of all around.
    """

    def __init__(self, channels: int, *, pads_end: bool = False) -> None:
        conv = Convolution(channels, channels, stride=2, padding=0 if pads_end else 1)
        if pads_end:
            super().__init__(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=conv)
        else:
            super().__init__(conv=conv)


class Upsample(Chain):
    """Doubles height and width by repeating, then convolves.

    Args:
        channels: Channels of the map, in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            repeat=nn.Upsample(scale_factor=2.0, mode="nearest"),
            conv=Convolution(channels, channels),
        )


class UpsampleLike(Chain):
    """Enlarges a map to the size of one that the context has, by repeating, then convolves.

    That size is mostly the double; it is not where halving had to round up.

    Args:
        channels: Channels of the map, in and out.
        like: The context key of the map that has the size.
    """

    def __init__(self, channels: int, like: str) -> None:
        super().__init__(
            sizes=Parallel(map=Identity(), like=UseContext(like)),
            resize=ResizeLike(),
            conv=Convolution(channels, channels),
        )


class ResizeLike(nn.Module):
    """Repeats the pixels of a map until it is as high and wide as another."""

    def forward(
        self,
        x: Float[Tensor, "rows channels height width"],
        like: Float[Tensor, "like_rows like_channels new_height new_width"],
    ) -> Float[Tensor, "rows channels new_height new_width"]:
        """Resizes the first map to the size of the second."""
        return interpolate(x, size=like.shape[-2:], mode="nearest")
