"""The autoencoder between pictures and latents."""

from threading import Lock
from typing import Final

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

Moments = tuple[
    Float[Tensor, "rows channels height width"], Float[Tensor, "rows channels height width"]
]
"""Mean and log-variance of latents."""


class AutoencoderKL(Chain):
    """A picture to a small map of latents and back (arXiv:2112.10752, section 3.1).

    Called as a tree it gives the picture back that its mean latents stand for.

    With `tiling` set, `encode` and `decode` cut pictures into tiles, and the memory that they take
    beside what comes in and goes out is that of one tile: with Stable Diffusion's sizes, `Tiling()`
    decodes 1024x1024 pixels in 1.1 GB at float32, and larger pictures in no more but their own
    size, where the whole takes 4.1 GB (measured by `benchmarks/memory.py`).

    Args:
        config: Its sizes.

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
    ) -> Float[Tensor, "rows latent_channels latent_height latent_width"]:
        """Returns the latents of pictures, scaled to a deviation of about 1.

        Args:
            pixels: Pictures in -1...1.
            generator: Where the noise of sampling comes from.
            sample: Whether latents are drawn from their distribution, by reparametrisation, so that
                gradients pass; otherwise they are its mean.

        Raises:
            ModelError: It is tiled, and a side is no multiple of the pixels of a latent.
        """
        side = self.config.reduction
        if self.tiling is not None and (pixels.shape[-1] % side or pixels.shape[-2] % side):
            raise ModelError(
                f"the sides of pictures that are encoded in tiles are multiples of {side}, not "
                f"{pixels.shape[-1]} x {pixels.shape[-2]}.",
                hint="Resize the picture, or set tiling = None.",
            )
        moments = self._mapped("encoder", pixels, side, 1)
        mean, log_variance = moments.chunk(2, dim=1)
        z = mean
        if sample:
            where = generator.device if generator is not None else mean.device
            noise = torch.randn(mean.shape, generator=generator, device=where, dtype=mean.dtype)
            z = mean + torch.exp(0.5 * log_variance) * noise.to(mean.device)
        return (z - self.config.shift_factor) * self.config.scaling_factor

    def decode(
        self, latents: Float[Tensor, "rows latent_channels latent_height latent_width"]
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the pictures that latents of deviation about 1 stand for, about in -1...1."""
        z = latents / self.config.scaling_factor + self.config.shift_factor
        return self._mapped("decoder", z, 1, self.config.reduction)

    def _mapped(self, part: str, x: Tensor, reads: int, writes: int) -> Tensor:
        network = self.at(part)

        def run(tile: Tensor) -> Tensor:
            made = network(tile)
            return torch.cat(made, dim=1) if isinstance(made, tuple) else made

        def all_of(x: Tensor) -> Tensor:
            return run(x) if self.tiling is None else self.tiling.map(run, x, reads, writes)

        with _WIDENING:
            is_wide = not self.config.overflows_half or self.dtype != torch.float16
        if is_wide:
            return all_of(x)
        with _WIDENING, moved(network, dtype=torch.float32):
            return all_of(x.float()).to(x.dtype)


_WIDENING: Final = Lock()
"""Held while weights are float32 for a call, lest another call finds half of them so."""


class Encoder(Chain):
    """Pictures to mean and log-variance of their latents, not scaled.

    Args:
        config: The autoencoder's sizes.
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
    """Latents, not scaled, to pictures.

    Args:
        config: The autoencoder's sizes.
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
    """One level on the way to latents.

    Args:
        config: The autoencoder's sizes.
        level: Which level, 0 the one of pixels.
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
    """One level on the way to pixels.

    Args:
        config: The autoencoder's sizes.
        level: Which level, 0 the one of pixels.
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
    """The level where positions look at one another.

    Args:
        config: The autoencoder's sizes.
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
    """Parts channels into mean and log-variance; the latter is kept within -30...20."""

    def forward(self, x: Float[Tensor, "rows twice height width"]) -> Moments:
        """Returns mean and log-variance."""
        mean, log_variance = x.chunk(2, dim=1)
        return mean, log_variance.clamp(-30.0, 20.0)


class MeanLatents(nn.Module):
    """Takes the mean of a distribution of latents."""

    def forward(
        self,
        mean: Float[Tensor, "rows channels height width"],
        log_variance: Float[Tensor, "rows channels height width"],
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the mean."""
        return mean


def _resnet(config: AutoencoderConfig, in_channels: int, out_channels: int) -> ResidualBlock:
    return ResidualBlock(in_channels, out_channels, groups=config.groups, eps=config.eps)
