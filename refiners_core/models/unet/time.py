"""The timestep, for every residual block to read."""

from typing import Final

from jaxtyping import Float, Num
from torch import Tensor, nn

from refiners_core.layers.timestep import SinusoidalEmbedding, TimestepEncoder
from refiners_core.models.unet.config import UNetConfig
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import (
    Concatenate,
    Identity,
    Parallel,
    Passthrough,
    Residual,
    SetContext,
    UseContext,
)

TIME = "unet.time"
"""The context key of the encoded timestep."""


class TimeEmbedding(Passthrough):
    """Encodes the context's timestep and writes it to the context; passes its input on.

    A UNet that knows more of the picture than its noise and its text adds that here.

    Args:
        config: The UNet's sizes.
    """

    def __init__(self, config: UNetConfig) -> None:
        picture: dict[str, nn.Module] = {}
        if config.added_cond_width is not None:
            picture["picture"] = AddedConditionEmbedding(config, config.added_cond_width)
        super().__init__(
            sources=Parallel(timestep=UseContext("timestep"), like=Identity()),
            embed=TimestepEncoder(config.channels[0], config.time_width),
            **picture,
            act=nn.SiLU(),
            keep=SetContext(TIME),
        )


class AddedConditionEmbedding(Residual):
    """Adds to the time what is known of the whole picture: its text, its sizes and its crop.

    The micro-conditioning of SDXL (arXiv:2307.01952, section 2.2) beside the pooled text: the
    context has `pooled`, `(rows, features)`, and `time_ids`, `(rows, 6)`: height and width of the
    original, top and left of the crop, height and width aimed at, in pixels.

    Args:
        config: The UNet's sizes.
        width: Features of pooled text and waves together.
    """

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__(
            known=Concatenate(
                pooled=UseContext("pooled"),
                time_ids=Chain(
                    sources=Parallel(ids=UseContext("time_ids"), like=Identity()),
                    waves=WavesOfEach(config.time_id_channels),
                ),
            ),
            linear_1=nn.Linear(width, config.time_width),
            act=nn.SiLU(),
            linear_2=nn.Linear(config.time_width, config.time_width),
        )


class WavesOfEach(nn.Module):
    """Reads several numbers of a row off waves, one after the other.

    Args:
        width: How many values come out for each number; even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves: Final = SinusoidalEmbedding(width)

    def forward(
        self, numbers: Num[Tensor, "rows numbers"], like: Float[Tensor, "..."]
    ) -> Float[Tensor, "rows waves"]:
        """Returns the waves of a row's numbers in the dtype and on the device of another tensor."""
        return self.waves(numbers.flatten(), like).reshape(len(numbers), -1)


class TimeShift(Residual):
    """Adds to each channel of a map what the time says.

    Args:
        config: The UNet's sizes.
        channels: Channels of the map.
    """

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__(
            time=UseContext(TIME),
            project=nn.Linear(config.time_width, channels),
            over_map=OverMap(),
        )


class OverMap(nn.Module):
    """Lets features stand for every position of a map."""

    def forward(self, x: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows channels 1 1"]:
        """Adds height and width of 1."""
        return x[:, :, None, None]
