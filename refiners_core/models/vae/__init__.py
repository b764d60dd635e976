"""The autoencoder between images and latents."""

from refiners_core.models.vae.autoencoder import AutoencoderKL, Decoder, Encoder
from refiners_core.models.vae.config import AutoencoderConfig
from refiners_core.models.vae.layout import AUTOENCODER_KEYS
from refiners_core.models.vae.tile import Tiling

__all__ = ["AUTOENCODER_KEYS", "AutoencoderConfig", "AutoencoderKL", "Decoder", "Encoder", "Tiling"]
