"""The stable names of places in language models."""

from collections.abc import Mapping
from typing import Final

from torch import nn

from refiners_core.layers.attend import Attend
from refiners_core.models.decoder.network import (
    Decoder,
    DecoderAttention,
    DecoderBlock,
    DecoderFeedForward,
)
from refiners_core.models.decoder.norm import RootMeanSquareNorm
from refiners_core.models.decoder.places import CountPlaces
from refiners_core.surgery.slot import Slot

DECODER_SLOTS: Final[Mapping[str, Slot]] = {
    "decoder.embed": Slot("tokens to the features of each", "decoder", name="embed", chain=Decoder),
    "decoder.places": Slot("the place of each token", "decoder", CountPlaces),
    "decoder.block": Slot("attention, then a feed-forward network", "decoder", DecoderBlock),
    "decoder.attention.input": Slot(
        "the features that attention starts from, before they are normalised",
        "decoder",
        name="norm",
        chain=DecoderAttention,
    ),
    "decoder.attend": Slot(
        "queries, keys and values to the output of the attention", "decoder", Attend
    ),
    "decoder.attention.output": Slot(
        "the output of attention, before it is added to the features",
        "decoder",
        name="output",
        chain=DecoderAttention,
    ),
    "decoder.feed_forward.input": Slot(
        "the features that a feed-forward network starts from, before they are normalised",
        "decoder",
        name="norm",
        chain=DecoderFeedForward,
    ),
    "decoder.feed_forward.output": Slot(
        "the output of a feed-forward network, before it is added to the features",
        "decoder",
        name="output",
        chain=DecoderFeedForward,
    ),
    "decoder.linear": Slot(
        "every linear layer of the blocks", "decoder", nn.Linear, within=DecoderBlock
    ),
    "decoder.norm": Slot(
        "every norm: of the blocks, of heads, and before the head",
        "decoder",
        (RootMeanSquareNorm, nn.LayerNorm),
    ),
    "decoder.head": Slot(
        "features to the logits of the next token", "decoder", name="head", chain=Decoder
    ),
}
