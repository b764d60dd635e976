"""CLIP's encoders of texts and images, and its tokenizer."""

from refiners_core.models.clip.config import ClipImageConfig, ClipTextConfig
from refiners_core.models.clip.image import ClipImageEncoder
from refiners_core.models.clip.layout import CLIP_IMAGE_KEYS, CLIP_TEXT_KEYS
from refiners_core.models.clip.pair import TextEncoderPair
from refiners_core.models.clip.pixels import clip_pixels
from refiners_core.models.clip.prompt import apply_weights, parse_weights
from refiners_core.models.clip.skip import ClipSkip
from refiners_core.models.clip.text import ClipTextEncoder
from refiners_core.models.clip.tokenizer import ClipTokenizer

__all__ = [
    "CLIP_IMAGE_KEYS",
    "CLIP_TEXT_KEYS",
    "ClipImageConfig",
    "ClipImageEncoder",
    "ClipSkip",
    "ClipTextConfig",
    "ClipTextEncoder",
    "ClipTokenizer",
    "TextEncoderPair",
    "apply_weights",
    "clip_pixels",
    "parse_weights",
]
