"""A language model: text in, text out."""

from collections.abc import Mapping
from typing import Any, Final

from refiners_core.model import Model
from refiners_core.models.decoder.config import DecoderConfig
from refiners_core.models.decoder.network import Decoder, DecoderBlock
from refiners_core.models.decoder.slot import DECODER_SLOTS


class LanguageModel(Model):
    """A decoder with its tokenizer.

    Its component is `decoder`.

    Args:
        decoder: The network.
        base: The name of the base model for adapters; the family's by default.
        facts: More facts by which variants of adapters are chosen.
    """

    repeated = (DecoderBlock,)

    def __init__(
        self, decoder: Decoder, *, base: str | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        config = decoder.config
        super().__init__(
            base=config.family if base is None else base,
            facts={
                "width": config.width,
                "layers": config.layers,
                "key_width": config.kv_heads * config.head_width,
                "vocabulary": config.vocabulary,
                **(facts or {}),
            },
            slots=DECODER_SLOTS,
            decoder=decoder,
        )
        self.config: Final[DecoderConfig] = config
