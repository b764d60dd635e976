"""The autoencoder between pictures and latents."""

from refiners_core.models.vae.autoencoder import AutoencoderKL, Decoder, Encoder
from refiners_core.models.vae.config import AutoencoderConfig

__all__ = ["AutoencoderConfig", "AutoencoderKL", "Decoder", "Encoder"]
