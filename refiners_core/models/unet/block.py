"""The levels of a UNet, on the way down, in the middle and on the way up."""

from torch import nn

from refiners_core.layers.resample import Downsample, UpsampleLike
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.transformer import SpatialTransformer
from refiners_core.models.unet.config import UNetConfig
from refiners_core.models.unet.skip import SkipRead, SkipWrite, skip_key
from refiners_core.models.unet.time import TimeShift
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity


class DownPath(Chain):
    """All levels on the way down; they record the skips from 1 on.

    Args:
        config: The sizes of the UNet.
    """

    def __init__(self, config: UNetConfig) -> None:
        levels = range(len(config.channels))
        super().__init__(**{str(level): DownBlock(config, level) for level in levels})


class DownBlock(Chain):
    """One level on the way down; the output of each layer is recorded for the way up.

    Args:
        config: The sizes of the UNet.
        level: The level, from 0 for full resolution.
    """

    def __init__(self, config: UNetConfig, level: int) -> None:
        channels = config.channels[level]
        below = config.channels[max(level - 1, 0)]
        count = config.layers[level]
        skip = config.first_skip(level) + 1
        children: dict[str, nn.Module] = {}
        for i in range(count):
            children[f"resnet_{i}"] = _resnet(config, below if i == 0 else channels, channels)
            if config.depths[level]:
                children[f"transformer_{i}"] = _transformer(config, level, config.depths[level])
            if i == count - 1:
                children["output"] = Identity()
            children[f"write_{i}"] = SkipWrite(skip + i)
        if level < len(config.channels) - 1:
            children["downsample"] = Downsample(channels)
            children[f"write_{count}"] = SkipWrite(skip + count)
        super().__init__(**children)


class MidBlock(Chain):
    """The middle, at the lowest resolution.

    Args:
        config: The sizes of the UNet.
    """

    def __init__(self, config: UNetConfig) -> None:
        channels = config.channels[-1]
        children: dict[str, nn.Module] = {"resnet_0": _resnet(config, channels, channels)}
        if config.mid_depth:
            children["transformer"] = _transformer(config, -1, config.mid_depth)
        children["resnet_1"] = _resnet(config, channels, channels)
        children["output"] = Identity()
        super().__init__(**children)


class UpPath(Chain):
    """All levels on the way up, from the lowest resolution.

    Args:
        config: The sizes of the UNet.
    """

    def __init__(self, config: UNetConfig) -> None:
        levels = reversed(range(len(config.channels)))
        super().__init__(**{str(i): UpBlock(config, level) for i, level in enumerate(levels)})


class UpBlock(Chain):
    """One level on the way up; before each layer a skip is concatenated, the latest first.

    Args:
        config: The sizes of the UNet.
        level: The level, from 0 for full resolution.
    """

    def __init__(self, config: UNetConfig, level: int) -> None:
        channels = config.channels[level]
        above = config.channels[min(level + 1, len(config.channels) - 1)]
        count = config.layers[level] + 1
        skip = config.first_skip(level)
        children: dict[str, nn.Module] = {}
        for i in range(count):
            index = skip + count - 1 - i
            joined = (above if i == 0 else channels) + config.skip_channels[index]
            children[f"read_{i}"] = SkipRead(index)
            children[f"resnet_{i}"] = _resnet(config, joined, channels)
            if config.depths[level]:
                children[f"transformer_{i}"] = _transformer(config, level, config.depths[level])
        children["output"] = Identity()
        if level > 0:
            children["upsample"] = UpsampleLike(channels, skip_key(skip - 1))
        super().__init__(**children)


def _resnet(config: UNetConfig, in_channels: int, out_channels: int) -> ResidualBlock:
    return ResidualBlock(
        in_channels,
        out_channels,
        groups=config.groups,
        eps=config.eps,
        shift=TimeShift(config, out_channels),
    )


def _transformer(config: UNetConfig, level: int, depth: int) -> SpatialTransformer:
    return SpatialTransformer(
        config.channels[level],
        config.heads[level],
        config.text_width,
        depth=depth,
        groups=config.groups,
        is_linear=config.has_linear_projection,
    )
