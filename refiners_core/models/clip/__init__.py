"""CLIP's encoders of texts and images, and its tokenizer."""

from refiners_core.models.clip.config import ClipImageConfig, ClipTextConfig
from refiners_core.models.clip.image import ClipImageEncoder
from refiners_core.models.clip.text import ClipTextEncoder

__all__ = ["ClipImageConfig", "ClipImageEncoder", "ClipTextConfig", "ClipTextEncoder"]
