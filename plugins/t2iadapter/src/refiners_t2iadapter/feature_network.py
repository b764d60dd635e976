"""The network that turns a picture into a feature map for each level of a UNet."""

from dataclasses import dataclass
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Context, Residual


@dataclass(frozen=True)
class FeatureConfig:
    """The sizes of a feature network; the defaults are those of the full one for SD 1.5."""

    picture_channels: int = 3
    """Channels of the picture: 3, or 1 for grey pictures."""
    block: int = 8
    """The side of the square of pixels that becomes one position of the largest map."""
    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of each map."""
    residuals: int = 2
    """Residual blocks before each map."""
    halving: tuple[int, ...] = (1, 2, 3)
    """The indices of the maps that are half as large as the previous one."""
    is_light: bool = False
    """Whether the network computes in a quarter of the channels."""


class FeatureNetwork(Chain):
    """Computes feature maps of a picture, the largest first (arXiv:2302.08453, section 3.3).

    It covers the released networks: full, light, and the one for Stable Diffusion XL.

    Args:
        config: The sizes.
    """

    def __init__(self, config: FeatureConfig) -> None:
        stem = config.picture_channels * config.block**2
        widths = config.widths
        inputs = (stem if config.is_light else widths[0], *widths)
        levels = {str(i): _level(config, i, inputs[i], width) for i, width in enumerate(widths)}
        conv_in = {} if config.is_light else {"conv_in": _conv(stem, widths[0])}
        super().__init__(
            unshuffle=nn.PixelUnshuffle(config.block), **conv_in, body=Features(**levels)
        )


class Features(Chain):
    """Runs its children one after the other and returns the output of each."""

    def run(self, context: Context, *inputs: Any) -> tuple[Float[Tensor, "rows _ _ _"], ...]:
        (x,) = inputs
        maps: list[Tensor] = []
        for child in self:
            x = self.call(child, context, x)
            maps.append(x)
        return tuple(maps)


def _level(config: FeatureConfig, index: int, channels: int, width: int) -> Chain:
    inner = width // 4 if config.is_light else width
    kernel: Final = 3 if config.is_light else 1  # of the second convolution of a residual block
    layers: dict[str, nn.Module] = {}
    if index in config.halving:
        layers["downsample"] = nn.AvgPool2d(2, 2, ceil_mode=True)
    if channels != inner:
        layers["in_conv"] = _conv(channels, inner, 1)
    blocks = {
        str(i): Residual(
            block1=_conv(inner, inner), act=nn.ReLU(), block2=_conv(inner, inner, kernel)
        )
        for i in range(config.residuals)
    }
    layers["resnets"] = Chain(**blocks)
    if config.is_light:
        layers["out_conv"] = _conv(inner, width, 1)
    return Chain(**layers)


def _conv(channels_in: int, channels_out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
