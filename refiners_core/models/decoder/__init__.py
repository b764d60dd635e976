"""Language models: decoder-only transformers of several families."""

from refiners_core.models.decoder.cache import CACHE, Cache
from refiners_core.models.decoder.chat import ChatTemplate
from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.models.decoder.continuation import Continuation, TextScore
from refiners_core.models.decoder.defaults import GenerationDefaults
from refiners_core.models.decoder.folder import build_decoder, is_decoder_folder, load_decoder
from refiners_core.models.decoder.language_model import LanguageModel
from refiners_core.models.decoder.layout import decoder_keys
from refiners_core.models.decoder.network import Decoder
from refiners_core.models.decoder.places import RECENT, TOKEN_MASK
from refiners_core.models.decoder.prompt_cache import PromptCache
from refiners_core.models.decoder.request import TextRequest
from refiners_core.models.decoder.rope import Rope
from refiners_core.models.decoder.sampling import Sampling
from refiners_core.models.decoder.slot import DECODER_SLOTS
from refiners_core.models.decoder.text_stream import TextStream
from refiners_core.models.decoder.tokenizer import TextTokenizer
from refiners_core.models.decoder.virtual_token import (
    BeginText,
    BegunKeys,
    KeysBefore,
    LaterPlaces,
)

__all__ = [
    "CACHE",
    "DECODER_SLOTS",
    "RECENT",
    "TOKEN_MASK",
    "BeginText",
    "BegunKeys",
    "Cache",
    "ChatTemplate",
    "Continuation",
    "Decoder",
    "DecoderConfig",
    "GenerationDefaults",
    "KeysBefore",
    "LanguageModel",
    "LaterPlaces",
    "PromptCache",
    "Rope",
    "Sampling",
    "TextRequest",
    "TextScore",
    "TextStream",
    "TextTokenizer",
    "build_decoder",
    "decoder_keys",
    "is_decoder_folder",
    "load_decoder",
]
