"""Attention to an image beside each attention to the text (arXiv:2308.06721)."""

from refiners_core.models.image_prompt.attention import ImageAttention
from refiners_core.models.image_prompt.beside import (
    IMAGE_ATTENTION_KEYS,
    image_attentions,
    image_edits,
    numbered,
)
from refiners_core.models.image_prompt.guided_resampler import (
    GUIDED_RESAMPLER_KEYS,
    GuidedResampler,
    first_input,
)
from refiners_core.models.image_prompt.mask import PictureAttend, joined_masks, token_masks
from refiners_core.models.image_prompt.resampler import (
    RESAMPLER_KEYS,
    Resampler,
    ResamplerConfig,
)
from refiners_core.models.image_prompt.style_place import style_places

__all__ = [
    "GUIDED_RESAMPLER_KEYS",
    "IMAGE_ATTENTION_KEYS",
    "RESAMPLER_KEYS",
    "GuidedResampler",
    "ImageAttention",
    "PictureAttend",
    "Resampler",
    "ResamplerConfig",
    "first_input",
    "image_attentions",
    "image_edits",
    "joined_masks",
    "numbered",
    "style_places",
    "token_masks",
]
