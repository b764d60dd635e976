"""The embedding of the timestep, which every residual block reads."""

from jaxtyping import Float, Num
from torch import Tensor, nn

from refiners_core.layers.timestep import EachEmbedding, TimestepEncoder
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
"""The context key of the embedded timestep."""


class TimeEmbedding(Passthrough):
    """Embeds `context["timestep"]`, writes it to the context and returns its input.

    A UNet that also reads pooled text and time ids adds their embedding.

    Args:
        config: The sizes of the UNet.
    """

    def __init__(self, config: UNetConfig) -> None:
        picture: dict[str, nn.Module] = {}
        if config.added_cond_width is not None:
            picture["picture"] = AddedConditionEmbedding(config, config.added_cond_width)
        super().__init__(
            sources=Parallel(timestep=UseContext("timestep"), like=Identity()),
            each_row=EachRow(),
            embed=TimestepEncoder(config.channels[0], config.time_width),
            **picture,
            act=nn.SiLU(),
            keep=SetContext(TIME),
        )


class EachRow(nn.Module):
    """Repeats a timestep that is the same for all rows.

    A matrix product rounds a single row otherwise than one of several. Without the repetition, an
    adapter that treats rows differently would change the bits of rows that it leaves alone.
    """

    def forward(
        self, timestep: Num[Tensor, "*rows"], like: Float[Tensor, "rows_of_like ..."]
    ) -> tuple[Num[Tensor, "_"], Float[Tensor, "rows_of_like ..."]]:
        """Returns the timestep of each row, and the second input unchanged."""
        return (timestep.expand(len(like)) if timestep.ndim == 0 else timestep), like


class AddedConditionEmbedding(Residual):
    """Adds the embedding of pooled text, sizes and crop to the embedded timestep.

    The micro-conditioning of SDXL (arXiv:2307.01952, section 2.2) with the pooled text. Reads
    `context["pooled"]`, `(rows, features)`, and `context["time_ids"]`, `(rows, 6)`: height and
    width of the original, top and left of the crop, height and width of the target, in pixels.

    Args:
        config: The sizes of the UNet.
        width: The features of pooled text and embedded time ids together.
    """

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__(
            known=Concatenate(
                pooled=UseContext("pooled"),
                time_ids=Chain(
                    sources=Parallel(ids=UseContext("time_ids"), like=Identity()),
                    waves=EachEmbedding(config.time_id_channels),
                ),
            ),
            linear_1=nn.Linear(width, config.time_width),
            act=nn.SiLU(),
            linear_2=nn.Linear(config.time_width, config.time_width),
        )


class TimeShift(Residual):
    """Adds the projected embedding of the timestep to each channel of a feature map.

    Args:
        config: The sizes of the UNet.
        channels: The channels of the feature map.
    """

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__(
            time=UseContext(TIME),
            project=nn.Linear(config.time_width, channels),
            over_map=OverMap(),
        )


class OverMap(nn.Module):
    """Shapes features so that they are added at every position of a feature map."""

    def forward(self, x: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows channels 1 1"]:
        """Returns the features with height and width 1."""
        return x[:, :, None, None]
