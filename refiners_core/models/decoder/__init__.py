"""Language models: decoder-only transformers of several families."""

from refiners_core.models.decoder.cache import CACHE, Cache
from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.models.decoder.folder import load_decoder
from refiners_core.models.decoder.language_model import LanguageModel
from refiners_core.models.decoder.layout import decoder_keys
from refiners_core.models.decoder.network import Decoder
from refiners_core.models.decoder.places import TOKEN_MASK
from refiners_core.models.decoder.rope import Rope
from refiners_core.models.decoder.slot import DECODER_SLOTS

__all__ = [
    "CACHE",
    "DECODER_SLOTS",
    "TOKEN_MASK",
    "Cache",
    "Decoder",
    "DecoderConfig",
    "LanguageModel",
    "Rope",
    "decoder_keys",
    "load_decoder",
]
