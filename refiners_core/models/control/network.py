"""The side network of ControlNet: a UNet's way down that also sees a picture of conditions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.models.unet import (
    DownPath,
    MidBlock,
    SkipWrite,
    TimeEmbedding,
    UNetConfig,
    skip_key,
)
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Multiply, Parallel, Scope, Sum, UseContext


class ConditionEncoder(Chain):
    """A picture of conditions to features of the latents' size (arXiv:2302.05543, section 3.2).

    Takes pixels `(rows, 3, height, width)` in 0...1. The last convolution begins at zero.

    Args:
        channels: Channels of each level, from the one of pixels; every step to the next halves
            height and width.
        out_channels: Channels of the features.
    """

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        convolutions: list[nn.Conv2d] = []
        for above, below in pairwise(channels):
            convolutions.append(nn.Conv2d(above, above, 3, padding=1))
            convolutions.append(nn.Conv2d(above, below, 3, stride=2, padding=1))
        blocks = [Chain(conv=convolution, act=nn.SiLU()) for convolution in convolutions]
        super().__init__(
            conv_in=nn.Conv2d(3, channels[0], 3, padding=1),
            act=nn.SiLU(),
            blocks=Chain(**{str(i): block for i, block in enumerate(blocks)}),
            conv_out=zero(nn.Conv2d(channels[-1], out_channels, 3, padding=1)),
        )
        self.reduction: Final = 2 ** (len(channels) - 1)


class ControlNetwork(Scope):
    """Latents and encoded conditions to what is to be added to a UNet's skips and middle.

    The network of arXiv:2302.05543, figure 3: the UNet's own way down and middle with weights of
    their own, each output through a 1x1 convolution that begins at zero. What it writes to the
    context stays inside; it returns a tuple of maps, the skips' first and the middle's last.

    Args:
        config: The sizes of the UNet.
        features: The context key of the encoded conditions.
        scale: The context key of the adapter's scale.
        text: The context key of the tokens that it reads where the UNet reads the text's.
    """

    def __init__(self, config: UNetConfig, features: str, scale: str, text: str = "text") -> None:
        skips = {
            f"skip_{i}": Chain(
                UseContext(skip_key(i)),
                zero_conv=zero(nn.Conv2d(channels, channels, 1)),
                scale=Multiply(scale),
            )
            for i, channels in enumerate(config.skip_channels)
        }
        top = config.channels[-1]
        super().__init__(
            latents=LatentsAlone(config.out_channels),
            time=TimeEmbedding(config),
            stem=Sum(
                conv_in=nn.Conv2d(config.out_channels, config.channels[0], 3, padding=1),
                condition=UseContext(features),
            ),
            write=SkipWrite(0),
            down=DownPath(config),
            mid=MidBlock(config),
            outputs=Parallel(
                **skips,
                mid=Chain(zero_conv=zero(nn.Conv2d(top, top, 1)), scale=Multiply(scale)),
            ),
            rebind=None if text == "text" else {"text": text},
        )


class LatentsAlone(nn.Module):
    """Takes the latents of what a UNet sees: one that paints into pictures sees a mask and a
    picture after them.

    Args:
        channels: Channels of the latents.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels: Final = channels

    def forward(
        self, x: Float[Tensor, "rows more height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the first channels."""
        return x[:, : self.channels]


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Returns a convolution whose output is zero until it is trained or loaded."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer
