"""T5's encoder of texts, and its tokenizer."""

from refiners_core.models.t5.config import T5Config
from refiners_core.models.t5.encoder import T5_MASK, T5Encoder
from refiners_core.models.t5.layout import T5_KEYS
from refiners_core.models.t5.tokenizer import T5Tokenizer

__all__ = ["T5_KEYS", "T5_MASK", "T5Config", "T5Encoder", "T5Tokenizer"]
