"""The convolutional block that UNets and autoencoders are made of."""

from torch import nn

from refiners_core.errors import ModelError
from refiners_core.layers.convolution import Convolution
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity, Sum


class ResidualBlock(Sum):
    """Two convolutions beside a shortcut (arXiv:1512.03385; pre-activated as in arXiv:1603.05027).

    Args:
        in_channels: Channels of the map that comes in.
        out_channels: Channels of the map that goes out; where they differ, the shortcut is a 1x1
            convolution.
        groups: Groups of channels that are normalised together.
        eps: What normalisation adds to the variance.
        shift: A layer between the convolutions, such as one that shifts channels by the time.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        eps: float,
        shift: nn.Module | None = None,
    ) -> None:
        check_groups(in_channels, groups)
        check_groups(out_channels, groups)
        super().__init__(
            shortcut=(
                Identity()
                if in_channels == out_channels
                else nn.Conv2d(in_channels, out_channels, 1)
            ),
            body=Chain(
                norm_1=nn.GroupNorm(groups, in_channels, eps),
                act_1=nn.SiLU(),
                conv_1=Convolution(in_channels, out_channels),
                **({} if shift is None else {"shift": shift}),
                norm_2=nn.GroupNorm(groups, out_channels, eps),
                act_2=nn.SiLU(),
                conv_2=Convolution(out_channels, out_channels),
            ),
        )


def check_groups(channels: int, groups: int) -> None:
    """Raises `ModelError` where channels cannot be normalised in so many groups."""
    if groups < 1 or channels % groups:
        raise ModelError(
            f"{channels} channels cannot be divided among {groups} groups.",
            hint="Choose a number of groups that divides every number of channels.",
        )
