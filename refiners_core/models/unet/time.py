"""The timestep, for every residual block to read."""

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.combinators import (
    Identity,
    Parallel,
    Passthrough,
    Residual,
    SetContext,
    UseContext,
)
from refiners_core.layers.timestep import TimestepEncoder
from refiners_core.models.unet.config import UNetConfig

TIME = "unet.time"
"""The context key of the encoded timestep."""


class TimeEmbedding(Passthrough):
    """Encodes the context's timestep and writes it to the context; passes its input on.

    Args:
        config: The UNet's sizes.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(
            sources=Parallel(timestep=UseContext("timestep"), like=Identity()),
            embed=TimestepEncoder(config.channels[0], config.time_width),
            act=nn.SiLU(),
            keep=SetContext(TIME),
        )


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
