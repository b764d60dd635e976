"""The sizes of an autoencoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from refiners_core.models.config_reader import Format, Published

AUTOENCODER: Final = Format.of(
    followed=(
        "in_channels out_channels latent_channels block_out_channels down_block_types "
        "up_block_types layers_per_block norm_num_groups mid_block_add_attention use_quant_conv "
        "use_post_quant_conv scaling_factor shift_factor force_upcast"
    ),
    fixed={"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,)},
    idle="sample_size",  # of training images, and of the tiles in diffusers
)
"""The keys of published autoencoders."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """The sizes of an autoencoder; the defaults are those of Stable Diffusion 1.5."""

    pixel_channels: int = 3
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    """The channels of each level; every level but the last halves height and width."""
    blocks: int = 2
    """The residual blocks of a level of the encoder; the decoder has one more."""
    groups: int = 32
    """The groups of group norms."""
    eps: float = 1e-6
    """The number that group norms add to the variance."""
    has_attention: bool = True
    """Whether the middle has self-attention."""
    has_quant_conv: bool = True
    """Whether a 1x1 convolution follows the encoder."""
    has_post_quant_conv: bool = True
    """Whether a 1x1 convolution precedes the decoder."""
    scaling_factor: float = 0.18215
    """The factor of latents that makes their standard deviation about 1."""
    shift_factor: float = 0.0
    """The number that is subtracted from latents before scaling."""
    overflows_half: bool = False
    """Whether activations overflow float16, as in SDXL: float16 weights then compute in float32."""

    @property
    def reduction(self) -> int:
        """The pixels per latent, along height and along width."""
        return 2 ** (len(self.channels) - 1)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of an `AutoencoderKL`.

        Raises:
            ModelError: The configuration has an unsupported setting.
        """
        read = Published(data, "AutoencoderKL", table=AUTOENCODER)
        channels = read.numbers("block_out_channels", (64,))
        read.only("down_block_types", ["DownEncoderBlock2D"] * len(channels))
        read.only("up_block_types", ["UpDecoderBlock2D"] * len(channels))
        read.only("out_channels", read.value("in_channels", 3))
        return cls(
            pixel_channels=read.value("in_channels", 3),
            latent_channels=read.value("latent_channels", 4),
            channels=channels,
            blocks=read.value("layers_per_block", 1),
            groups=read.value("norm_num_groups", 32),
            has_attention=read.value("mid_block_add_attention", True),
            has_quant_conv=read.value("use_quant_conv", True),
            has_post_quant_conv=read.value("use_post_quant_conv", True),
            scaling_factor=read.value("scaling_factor", 0.18215),
            shift_factor=read.value("shift_factor", 0.0),
            overflows_half=read.value("force_upcast", False),
        )
