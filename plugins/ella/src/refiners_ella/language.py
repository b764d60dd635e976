"""The language models that read prompts: T5's encoder, or a decoder without its last layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from refiners_core import Chain, Identity
from refiners_core.errors import ModelError
from refiners_core.models.decoder import (
    TOKEN_MASK,
    Decoder,
    DecoderConfig,
    TextTokenizer,
    decoder_keys,
)
from refiners_core.models.device import built_on
from refiners_core.models.t5 import T5_KEYS, T5_MASK, T5Config, T5Encoder, T5Tokenizer
from refiners_core.weights import load

LAST: Final = ("head", "cap")
"""The layers of a decoder after its features."""


@runtime_checkable
class Tokenizer(Protocol):
    """Turns texts into rows of tokens."""

    def rows(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
        """Returns the ids of texts, cut or padded to `length`, and True for each that is text."""
        ...


class DecoderTokenizer:
    """Turns texts into rows of tokens of a decoder, padded behind the text.

    Args:
        model: The tokenizer of the language model.
    """

    def __init__(self, model: TextTokenizer) -> None:
        self.model: Final = model

    def rows(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
        """Returns the ids of texts, cut or padded to `length`, and True for each that is text.

        An empty text without a token that begins it is one token of padding.
        """
        ids = [self.model.tokens(text)[:length] or [0] for text in texts]
        width = length or max(map(len, ids))
        counts = torch.tensor([[len(row)] for row in ids], device="cpu")
        padded = [[*row, *[0] * (width - len(row))] for row in ids]
        rows = torch.tensor(padded, dtype=torch.long, device="cpu")
        return rows, torch.arange(width, device="cpu") < counts


@dataclass
class Language:
    """A language model that turns texts into features of their tokens."""

    network: Chain
    """Takes ids `(rows, tokens)`; returns features `(rows, tokens, width)`."""
    mask: str
    """The context key of the mask `(rows, tokens)`, True for text."""

    @classmethod
    def untrained(cls, config: T5Config | DecoderConfig) -> Self:
        """Builds a network of some sizes with random weights."""
        if isinstance(config, DecoderConfig):
            return cls(_without_head(Decoder(config)), TOKEN_MASK)
        return cls(T5Encoder(config), T5_MASK)

    @classmethod
    def loaded(cls, config: T5Config | DecoderConfig, weights: Path, **placement: Any) -> Self:
        """Builds a network and loads its weights.

        Args:
            config: Its sizes.
            weights: The published file; of a decoder, in one file.
            placement: `dtype` and `device`.

        Raises:
            WeightsError: The file is not one of such a network.
        """
        with built_on("meta"):
            network = Decoder(config) if isinstance(config, DecoderConfig) else T5Encoder(config)
        keys = decoder_keys(config) if isinstance(config, DecoderConfig) else T5_KEYS
        load(network, weights, keys, **placement)
        if isinstance(network, Decoder):
            return cls(_without_head(network), TOKEN_MASK)
        return cls(network, T5_MASK)

    def read(
        self, ids: Int[Tensor, "rows tokens"], mask: Bool[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows tokens width"]:
        """Returns the features of tokens after the last norm."""
        return self.network(ids, context={self.mask: mask})


def language_config(data: Mapping[str, Any]) -> T5Config | DecoderConfig:
    """Reads the published `config.json` of a T5, or of a decoder such as Llama.

    Raises:
        ModelError: The configuration is of neither, or has an unsupported setting.
    """
    if data.get("model_type", "t5") == "t5":
        return T5Config.from_json(data)
    return DecoderConfig.from_json(data)


def language_tokenizer(config: T5Config | DecoderConfig, path: Path) -> Tokenizer:
    """Reads the published `tokenizer.json` of a language model.

    Args:
        config: The sizes of the model, which tell its kind.
        path: The file; of a decoder, in a folder that may have a `tokenizer_config.json`.

    Raises:
        ModelError: The file cannot be read.
    """
    if isinstance(config, T5Config):
        return T5Tokenizer.load(path)
    tokenizer = TextTokenizer.load(path.parent)
    if tokenizer is None:
        raise ModelError(
            f"{path.parent} has no tokenizer.json.", hint="Take the one of the language model."
        )
    return DecoderTokenizer(tokenizer)


def _without_head(decoder: Decoder) -> Decoder:
    """Replaces the layers of a decoder after its features, in place."""
    for name, _ in [*decoder.children_by_name()]:
        if name in LAST:
            decoder.replace(name, Identity())
    return decoder
