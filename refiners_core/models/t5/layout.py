"""The layout in which T5's encoder is published."""

from typing import Final

from refiners_core.weights.key_map import KeyMap

_OURS, _THEIRS = "blocks.{i}", "encoder.block.{i}"

T5_KEYS: Final = KeyMap(
    {
        "embed": "shared",
        "bias.relative.embedding": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        "norm": "encoder.final_layer_norm",
        f"{_OURS}.attention.norm": f"{_THEIRS}.layer.0.layer_norm",
        **{
            f"{_OURS}.attention.project.to_{letter}": f"{_THEIRS}.layer.0.SelfAttention.{letter}"
            for letter in "qkv"
        },
        f"{_OURS}.attention.to_out": f"{_THEIRS}.layer.0.SelfAttention.o",
        f"{_OURS}.feed_forward.norm": f"{_THEIRS}.layer.1.layer_norm",
        f"{_OURS}.feed_forward.expand.gate": f"{_THEIRS}.layer.1.DenseReluDense.wi_0",
        f"{_OURS}.feed_forward.expand.value": f"{_THEIRS}.layer.1.DenseReluDense.wi_1",
        f"{_OURS}.feed_forward.contract": f"{_THEIRS}.layer.1.DenseReluDense.wo",
    },
    # A twin of `shared`, and the parts of a whole T5 that encode no text.
    ignored=["encoder.embed_tokens.weight", "decoder.*", "lm_head.weight"],
)
"""The layout of transformers' T5, whether a file has the encoder alone or the decoder too."""
