"""The autoencoder between images and latents."""

from collections.abc import Mapping
from threading import Lock
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from refiners_core.errors import ModelError
from refiners_core.layers.attention import SelfAttention
from refiners_core.layers.resample import Downsample, Upsample
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.tokens import AsTokens
from refiners_core.models.device import moved
from refiners_core.models.vae.config import AutoencoderConfig
from refiners_core.models.vae.tile import Tiling
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Residual
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

Moments = tuple[
    Float[Tensor, "rows latent_channels latent_height latent_width"],
    Float[Tensor, "rows latent_channels latent_height latent_width"],
]
"""The mean and log-variance of latents."""


class AutoencoderKL(Chain):
    """Encodes images to latents and decodes them again (arXiv:2112.10752, section 3.1).

    Called as a tree it returns the image of its mean latents.

    With `tiling` set, `encode` and `decode` work tile by tile, and need the memory of one tile
    beside their input and output. With Stable Diffusion's sizes, `Tiling()` decodes 1024x1024
    pixels in 1.1 GB at float32 instead of 4.1 GB, and larger images in no more than that beside
    the image (measured by `benchmarks/memory.py`).

    Args:
        config: The sizes of the autoencoder.

    Example:
        >>> model = AutoencoderKL(AutoencoderConfig(channels=(32, 32), blocks=1))
        >>> model.tiling = Tiling(side=8, overlap=2)
        >>> model.decode(torch.zeros(1, 4, 12, 8)).shape
        torch.Size([1, 3, 24, 16])
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(encoder=Encoder(config), latents=MeanLatents(), decoder=Decoder(config))
        self.config: Final = config
        self.tiling: Tiling | None = None

    def encode(
        self,
        pixels: Float[Tensor, "rows channels height width"],
        generator: Generator | None = None,
        sample: bool = True,
        context: Mapping[str, Any] | Context | None = None,
    ) -> Float[Tensor, "rows latent_channels latent_height latent_width"]:
        """Returns the latents of images, scaled to a standard deviation of about 1.

        Args:
            pixels: Images in -1...1.
            generator: The random generator for sampling.
            sample: Whether latents are sampled from their distribution, differentiably; otherwise
                they are its mean.
            context: The values that adapters of the encoder read, such as their scales.

        Raises:
            ModelError: `tiling` is set and a side is not a multiple of the pixels of a latent.
        """
        mean, log_variance = self.moments(pixels, context)
        z = mean
        if sample:
            device = generator.device if generator is not None else mean.device
            noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
            z = mean + torch.exp(0.5 * log_variance) * noise.to(mean.device)
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def moments(
        self,
        pixels: Float[Tensor, "rows channels height width"],
        context: Mapping[str, Any] | Context | None = None,
    ) -> Moments:
        """Returns mean and log-variance of the latents of images, not scaled.

        Args:
            pixels: Images in -1...1.
            context: The values that adapters of the encoder read, such as their scales.

        Raises:
            ModelError: `tiling` is set and a side is not a multiple of the pixels of a latent.
        """
        side = self.config.reduction
        if self.tiling is not None and (pixels.shape[-1] % side or pixels.shape[-2] % side):
            raise ModelError(
                f"the sides of images that are encoded in tiles are multiples of {side}, not "
                f"{pixels.shape[-1]} x {pixels.shape[-2]}.",
                hint="Resize the image, or set tiling = None.",
            )
        mean, log_variance = self._mapped("encoder", pixels, side, 1, context).chunk(2, dim=1)
        return mean, log_variance

    def decode(
        self,
        latents: Float[Tensor, "rows latent_channels latent_height latent_width"],
        context: Mapping[str, Any] | Context | None = None,
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the images of latents that `encode` has scaled, in about -1...1.

        Args:
            latents: The latents.
            context: The values that adapters of the decoder read, such as their scales.
        """
        z = latents / self.config.scaling_factor + self.config.shift_factor
        return self._mapped("decoder", z, 1, self.config.reduction, context)

    def _mapped(self, part: str, x: Tensor, reads: int, writes: int, context: Any) -> Tensor:
        network = self.at(part)
        options = {"context": context} if isinstance(network, Layer) else {}

        def run(tile: Tensor) -> Tensor:
            output = network(tile, **options)
            return torch.cat(output, dim=1) if isinstance(output, tuple) else output

        def tiled(x: Tensor) -> Tensor:
            return run(x) if self.tiling is None else self.tiling.map(run, x, reads, writes)

        with _WIDENING:
            is_wide = not self.config.overflows_half or self.dtype != torch.float16
        if is_wide:
            return tiled(x)
        with _WIDENING, moved(network, dtype=torch.float32):
            return tiled(x.float()).to(x.dtype)


_WIDENING: Final = Lock()
"""Held while the weights are float32 for a call, so that no other call sees half of them."""


class Encoder(Chain):
    """Encodes images to the mean and log-variance of their latents, not scaled.

    Args:
        config: The sizes of the autoencoder.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        top = config.channels[-1]
        moments = 2 * config.latent_channels
        blocks = [EncoderBlock(config, level) for level in range(len(config.channels))]
        super().__init__(
            conv_in=nn.Conv2d(config.pixel_channels, config.channels[0], 3, padding=1),
            down=Chain(**{str(i): block for i, block in enumerate(blocks)}),
            mid=Middle(config),
            norm_out=nn.GroupNorm(config.groups, top, config.eps),
            act=nn.SiLU(),
            conv_out=nn.Conv2d(top, moments, 3, padding=1),
            **({"quant_conv": nn.Conv2d(moments, moments, 1)} if config.has_quant_conv else {}),
            moments=SplitMoments(),
        )


class Decoder(Chain):
    """Decodes latents, not scaled, to images.

    Args:
        config: The sizes of the autoencoder.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        top, bottom, z = config.channels[-1], config.channels[0], config.latent_channels
        blocks = [DecoderBlock(config, level) for level in reversed(range(len(config.channels)))]
        super().__init__(
            **({"post_quant_conv": nn.Conv2d(z, z, 1)} if config.has_post_quant_conv else {}),
            conv_in=nn.Conv2d(z, top, 3, padding=1),
            mid=Middle(config),
            up=Chain(**{str(i): block for i, block in enumerate(blocks)}),
            norm_out=nn.GroupNorm(config.groups, bottom, config.eps),
            act=nn.SiLU(),
            conv_out=nn.Conv2d(bottom, config.pixel_channels, 3, padding=1),
        )


class EncoderBlock(Chain):
    """One level of the encoder.

    Args:
        config: The sizes of the autoencoder.
        level: The level, from 0 for the resolution of pixels.
    """

    def __init__(self, config: AutoencoderConfig, level: int) -> None:
        channels = config.channels[level]
        below = config.channels[max(level - 1, 0)]
        layers: dict[str, nn.Module] = {
            f"resnet_{i}": _resnet(config, below if i == 0 else channels, channels)
            for i in range(config.blocks)
        }
        if level < len(config.channels) - 1:
            layers["downsample"] = Downsample(channels, pads_end=True)
        super().__init__(**layers)


class DecoderBlock(Chain):
    """One level of the decoder.

    Args:
        config: The sizes of the autoencoder.
        level: The level, from 0 for the resolution of pixels.
    """

    def __init__(self, config: AutoencoderConfig, level: int) -> None:
        channels = config.channels[level]
        above = config.channels[min(level + 1, len(config.channels) - 1)]
        layers: dict[str, nn.Module] = {
            f"resnet_{i}": _resnet(config, above if i == 0 else channels, channels)
            for i in range(config.blocks + 1)
        }
        if level > 0:
            layers["upsample"] = Upsample(channels)
        super().__init__(**layers)


class Middle(Chain):
    """The middle, at the resolution of latents, with attention.

    Args:
        config: The sizes of the autoencoder.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        top = config.channels[-1]
        attention: dict[str, nn.Module] = {}
        if config.has_attention:
            attention["attention"] = Residual(
                norm=nn.GroupNorm(config.groups, top, config.eps),
                tokens=AsTokens(attention=SelfAttention(top, heads=1, has_bias=True)),
            )
        super().__init__(
            resnet_0=_resnet(config, top, top), **attention, resnet_1=_resnet(config, top, top)
        )


class SplitMoments(nn.Module):
    """Splits channels into mean and log-variance; the latter is clamped to -30...20."""

    def forward(self, x: Float[Tensor, "rows twice height width"]) -> Moments:
        """Returns mean and log-variance."""
        mean, log_variance = x.chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class MeanLatents(nn.Module):
    """Returns the mean of a distribution of latents."""

    def forward(
        self,
        mean: Float[Tensor, "rows channels height width"],
        log_variance: Float[Tensor, "rows channels height width"],
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the mean."""
        return mean


def _resnet(config: AutoencoderConfig, in_channels: int, out_channels: int) -> ResidualBlock:
    return ResidualBlock(in_channels, out_channels, groups=config.groups, eps=config.eps)
