"""The side network of ControlNet: a UNet's way down that also reads a conditioning image."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

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
from refiners_core.tree.combinators import Lambda, Multiply, Parallel, Scope, Sum, UseContext
from refiners_core.tree.context import Context


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
        weights: The context key of the weights of outputs, for `ControlOutput`.
        is_pooled: Whether each output is the mean over all positions, with height and width 1.
        trunk: The layers `time`, `conv_in`, `down` and `mid`; new ones by default.
        condition: Returns what is added to the first feature map; the encoded image by default.
        outputs: The convolutions of the outputs, as `control_outputs` builds them.
    """

    def __init__(
        self,
        config: UNetConfig,
        features: str,
        scale: str | None = None,
        text: str = "text",
        *,
        weights: str = "",
        is_pooled: bool = False,
        trunk: Mapping[str, nn.Module] | None = None,
        condition: nn.Module | None = None,
        outputs: nn.Module | None = None,
    ) -> None:
        layers = control_trunk(config) if trunk is None else trunk
        super().__init__(
            latents=LatentsAlone(config.out_channels),
            time=layers["time"],
            stem=Sum(conv_in=layers["conv_in"], condition=condition or UseContext(features)),
            write=SkipWrite(0),
            down=layers["down"],
            mid=layers["mid"],
            outputs=outputs or control_outputs(config, scale, weights, is_pooled),
            rebind=None if text == "text" else {"text": text},
        )


class ControlOutput(Chain):
    """One output of a side network, with a weight where the context has weights of outputs.

    While the context has a value for `weights`, the output is multiplied by the value of
    `{weights}.{index}`; without one it is not computed, and None is returned.

    Args:
        weights: The context key of the weights; empty for outputs that never have one.
        index: The index of the output: those of the skips in their order, then the middle's.
        layers: The layers that compute the output.
    """

    def __init__(self, weights: str, index: int, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self.weights: Final = weights
        self.weight: Final = f"{weights}.{index}"

    def run(self, context: Context, *inputs: Any) -> Tensor | None:
        if not self.weights or context.get(self.weights) is None:
            return super().run(context, *inputs)
        weight = context.get(self.weight)
        return None if weight is None else super().run(context, *inputs) * weight


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


def control_trunk(config: UNetConfig) -> dict[str, nn.Module]:
    """Builds the layers that a side network has in common with a UNet's way down.

    Args:
        config: The sizes of the UNet; a `mid_depth` of 0 leaves the middle without attention.
    """
    return {
        "time": TimeEmbedding(config),
        "conv_in": nn.Conv2d(config.out_channels, config.channels[0], 3, padding=1),
        "down": DownPath(config),
        "mid": MidBlock(config),
    }


def control_outputs(
    config: UNetConfig, scale: str | None = None, weights: str = "", is_pooled: bool = False
) -> Parallel:
    """Builds the convolution of each output, initialised to zero; arguments of `ControlNetwork`."""

    def output(channels: int) -> dict[str, nn.Module]:
        layers: dict[str, nn.Module] = {"zero_conv": zero(nn.Conv2d(channels, channels, 1))}
        if scale is not None:
            layers["scale"] = Multiply(scale)
        if is_pooled:
            layers["pool"] = Lambda(spatial_mean)
        return layers

    skips = {
        f"skip_{i}": ControlOutput(weights, i, record=UseContext(skip_key(i)), **output(channels))
        for i, channels in enumerate(config.skip_channels)
    }
    mid = ControlOutput(weights, len(skips), **output(config.channels[-1]))
    return Parallel(**skips, mid=mid)


def spatial_mean(
    x: Float[Tensor, "rows channels height width"],
) -> Float[Tensor, "rows channels 1 1"]:
    """Returns the mean of each channel over all positions."""
    return x.mean((2, 3), keepdim=True)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """Returns a convolution whose output is zero until it is trained or loaded."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer
