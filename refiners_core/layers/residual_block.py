"""The convolutional block of UNets and autoencoders."""

from torch import nn

from refiners_core.errors import ModelError
from refiners_core.layers.convolution import Convolution
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity, Sum


class ResidualBlock(Sum):
    """Two convolutions beside a shortcut (arXiv:1512.03385; pre-activated as in arXiv:1603.05027).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; if they differ, the shortcut is a 1x1 convolution.
        groups: Number of groups of the normalisations; divides both numbers of channels.
        eps: The value that the normalisations add to the variance.
        shift: A layer between the convolutions, such as one that shifts channels by the timestep.

    Raises:
        ModelError: The number of groups does not divide a number of channels.
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
    """Raises if channels cannot be divided into groups.

    Raises:
        ModelError: The number of groups does not divide the number of channels.
    """
    if groups < 1 or channels % groups:
        raise ModelError(
            f"{channels} channels cannot be divided among {groups} groups.",
            hint="Choose a number of groups that divides every number of channels.",
        )
