"""Attention to an image beside each attention to the text (arXiv:2308.06721)."""

from refiners_core.models.image_prompt.attention import ImageAttention
from refiners_core.models.image_prompt.beside import (
    IMAGE_ATTENTION_KEYS,
    image_attentions,
    image_edits,
    numbered,
)
from refiners_core.models.image_prompt.resampler import (
    RESAMPLER_KEYS,
    Resampler,
    ResamplerConfig,
)

__all__ = [
    "IMAGE_ATTENTION_KEYS",
    "RESAMPLER_KEYS",
    "ImageAttention",
    "Resampler",
    "ResamplerConfig",
    "image_attentions",
    "image_edits",
    "numbered",
]
