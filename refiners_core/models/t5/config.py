"""The sizes of T5's encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from refiners_core.models.config_reader import Format, Published

T5: Final = Format.of(
    followed=(
        "vocab_size d_model d_ff num_layers num_heads d_kv relative_attention_num_buckets "
        "relative_attention_max_distance layer_norm_epsilon"
    ),
    fixed={
        "feed_forward_proj": ("gated-gelu",),
        "dense_act_fn": ("gelu_new",),
        "is_gated_act": (True,),
        "is_decoder": (False,),
        "pruned_heads": ({},),
        "model_type": (None, "t5"),
    },
    # Settings of the decoder, of training and of the tokenizer.
    idle=(
        "num_decoder_layers is_encoder_decoder dropout_rate initializer_factor classifier_dropout "
        "decoder_start_token_id pad_token_id eos_token_id bos_token_id n_positions output_past "
        "architectures transformers_version dtype torch_dtype use_cache tie_word_embeddings "
        "output_hidden_states output_attentions return_dict chunk_size_feed_forward "
        "task_specific_params id2label label2id problem_type name_or_path scale_decoder_outputs "
        "add_cross_attention cross_attention_hidden_size finetuning_task tokenizer_class"
    ),
)
"""The keys of published configurations: of encoders, and of whole models with a decoder."""


@dataclass(frozen=True)
class T5Config:
    """The sizes of an encoder of T5 1.1; the defaults are those of flan-t5-xl."""

    vocabulary: int = 32128
    """The number of tokens that the encoder knows."""
    width: int = 2048
    """The features of a token."""
    inner_width: int = 5120
    """The features inside a feed-forward network."""
    layers: int = 24
    heads: int = 32
    head_width: int = 64
    """The features of a head."""
    buckets: int = 32
    """The number of distances that the attention tells apart, in both directions together."""
    farthest: int = 128
    """The distance in tokens from which on all share a bucket."""
    eps: float = 1e-6
    """The number that norms add to the mean square."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of an encoder, or of a whole T5 1.1.

        Raises:
            ModelError: The configuration has an unsupported setting, such as the ungated networks
                of the first T5.
        """
        read = Published(data, "T5EncoderModel", table=T5)
        if "feed_forward_proj" not in data:
            raise read.refusal("feed_forward_proj", "'gated-gelu'")
        return cls(
            vocabulary=read.value("vocab_size", 32128),
            width=read.value("d_model", 512),
            inner_width=read.value("d_ff", 2048),
            layers=read.value("num_layers", 6),
            heads=read.value("num_heads", 8),
            head_width=read.value("d_kv", 64),
            buckets=read.value("relative_attention_num_buckets", 32),
            farthest=read.value("relative_attention_max_distance", 128),
            eps=read.value("layer_norm_epsilon", 1e-6),
        )
