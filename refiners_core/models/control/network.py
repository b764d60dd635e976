"""The side network of ControlNet: a UNet's way down that also reads a conditioning image."""

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
    """Encodes a conditioning image to the size of latents (arXiv:2302.05543, section 3.2).

    Takes pixels `(rows, 3, height, width)` in 0...1. The last convolution is initialised to zero.

    Args:
        channels: The channels of each level, from the resolution of pixels; each level halves
            height and width of the one before.
        out_channels: The channels of the features.
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
    """Computes what is added to a UNet's skips and middle from latents and an encoded image.

    The network of arXiv:2302.05543, figure 3: a copy of the UNet's way down and middle, each output
    through a 1x1 convolution that is initialised to zero. Its context values stay inside. Returns a
    tuple of feature maps: those of the skips, then the middle's.

    Args:
        config: The sizes of the UNet.
        features: The context key of the encoded image.
        scale: The context key of the scale by which the outputs are multiplied; None to leave that
            to the edits that add them.
        text: The context key of the tokens to which the network attends instead of `text`.
    """

    def __init__(
        self, config: UNetConfig, features: str, scale: str | None = None, text: str = "text"
    ) -> None:
        def output(channels: int) -> dict[str, nn.Module]:
            scaled = {} if scale is None else {"scale": Multiply(scale)}
            return {"zero_conv": zero(nn.Conv2d(channels, channels, 1)), **scaled}

        skips = {
            f"skip_{i}": Chain(UseContext(skip_key(i)), **output(channels))
            for i, channels in enumerate(config.skip_channels)
        }
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
                mid=Chain(**output(config.channels[-1])),
            ),
            rebind=None if text == "text" else {"text": text},
        )


class LatentsAlone(nn.Module):
    """Returns the latents of a UNet's input, which for inpainting has more channels.

    Args:
        channels: The channels of the latents.
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
