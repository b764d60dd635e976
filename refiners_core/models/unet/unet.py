"""The UNet, which predicts the noise in latents."""

from typing import Final

from torch import nn

from refiners_core.models.unet.block import DownPath, MidBlock, UpPath
from refiners_core.models.unet.config import UNetConfig
from refiners_core.models.unet.skip import SkipReserve, SkipWrite
from refiners_core.models.unet.time import TimeEmbedding
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity


class UNet(Chain):
    """Predicts the noise in latents from a timestep and a text (arXiv:2112.10752, section 3.2).

    Takes latents `(rows, in_channels, height, width)` and returns `(rows, out_channels, height,
    width)`. Reads `context["timestep"]`, 0-d or `(rows,)`, and `context["text"]`, `(rows, tokens,
    text_width)`; with `added_cond_width` also `context["pooled"]` and `context["time_ids"]`.

    Args:
        config: The sizes of the UNet.

    Example:
        >>> import torch
        >>> config = UNetConfig(
        ...     channels=(8, 16), layers=(1, 1), depths=(1, 0), heads=(2, 2), text_width=8, groups=4
        ... )
        >>> context = {"timestep": torch.tensor(7), "text": torch.randn(1, 5, 8)}
        >>> UNet(config)(torch.randn(1, 4, 16, 16), context=context).shape
        torch.Size([1, 4, 16, 16])
    """

    def __init__(self, config: UNetConfig) -> None:
        channels = config.channels[0]
        super().__init__(
            input=Identity(),
            time=TimeEmbedding(config),
            conv_in=nn.Conv2d(config.in_channels, channels, 3, padding=1),
            skips=SkipReserve(len(config.skip_channels)),
            write=SkipWrite(0),
            down=DownPath(config),
            mid=MidBlock(config),
            up=UpPath(config),
            norm_out=nn.GroupNorm(config.groups, channels, config.eps),
            act=nn.SiLU(),
            conv_out=nn.Conv2d(channels, config.out_channels, 3, padding=1),
        )
        self.config: Final = config
