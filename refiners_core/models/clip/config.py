"""The sizes of CLIP's encoders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from refiners_core.errors import ModelError
from refiners_core.models.config_reader import Format, Published

_SIZES: Final = (
    "hidden_size intermediate_size num_hidden_layers num_attention_heads hidden_act layer_norm_eps "
    "projection_dim architectures"
)
# Settings of training, of the format of results, and of models that generate texts, which every
# configuration of transformers has had.
_IDLE: Final = (
    "attention_dropout dropout initializer_range initializer_factor logit_scale_init_value "
    "transformers_version dtype torch_dtype output_hidden_states output_attentions return_dict "
    "return_dict_in_generate output_scores use_return_dict use_cache torchscript use_bfloat16 "
    "tf_legacy_loss gradient_checkpointing chunk_size_feed_forward id2label label2id num_labels "
    "problem_type finetuning_task task_specific_params tokenizer_class prefix name_or_path "
    "tie_word_embeddings tie_encoder_decoder cross_attention_hidden_size max_length min_length "
    "do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p "
    "typical_p repetition_penalty length_penalty no_repeat_ngram_size "
    "encoder_no_repeat_ngram_size bad_words_ids num_return_sequences forced_bos_token_id "
    "forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens "
    "begin_suppress_tokens sep_token_id decoder_start_token_id attn_implementation"
)
_FIXED: Final[dict[str, tuple[Any, ...]]] = {
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
}
CLIP_TEXT: Final = Format.of(
    followed=f"{_SIZES} vocab_size max_position_embeddings eos_token_id",
    fixed=_FIXED
    | {"use_attention_mask": (False,), "model_type": (None, "clip_text_model", "clip")},
    idle=f"{_IDLE} pad_token_id bos_token_id",  # of the tokenizer
)
"""The keys of published text encoders."""
CLIP_IMAGE: Final = Format.of(
    followed=f"{_SIZES} image_size patch_size num_channels",
    fixed=_FIXED | {"model_type": (None, "clip_vision_model", "clip")},
    idle=_IDLE,
)
"""The keys of published image encoders."""


@dataclass(frozen=True)
class ClipTextConfig:
    """The sizes of a text encoder; the defaults are those of ViT-L/14, as in SD 1.5."""

    vocabulary: int = 49408
    """The number of tokens that the encoder knows."""
    max_tokens: int = 77
    """The number of tokens of a text, with start, end and padding."""
    width: int = 768
    """The features of a token."""
    inner_width: int = 3072
    """The features inside a feed-forward network."""
    layers: int = 12
    heads: int = 12
    activation: str = "quick_gelu"
    """The activation of the feed-forward networks: `quick_gelu` or `gelu`."""
    eps: float = 1e-5
    """The number that layer norms add to the variance."""
    end_token: int = 49407
    """The id of the end token; 2 means the highest id of a text."""
    projection_width: int | None = None
    """The features of the pooled text; None for an encoder that does not pool."""

    def __post_init__(self) -> None:
        _check(self.activation, self.layers)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of a CLIP text encoder, or of a whole CLIP.

        Raises:
            ModelError: The configuration has an unsupported setting.
        """
        read = Published(data.get("text_config") or data, "CLIPTextModel", table=CLIP_TEXT)
        is_projected = "CLIPTextModelWithProjection" in (data.get("architectures") or ())
        return cls(
            vocabulary=read.value("vocab_size", 49408),
            max_tokens=read.value("max_position_embeddings", 77),
            width=read.value("hidden_size", 512),
            inner_width=read.value("intermediate_size", 2048),
            layers=read.value("num_hidden_layers", 12),
            heads=read.value("num_attention_heads", 8),
            activation=read.value("hidden_act", "quick_gelu"),
            eps=read.value("layer_norm_eps", 1e-5),
            end_token=read.value("eos_token_id", 49407),
            projection_width=read.value("projection_dim", 512) if is_projected else None,
        )


@dataclass(frozen=True)
class ClipImageConfig:
    """The sizes of an image encoder; the defaults are those of ViT-H/14, as in IP-Adapter."""

    image_size: int = 224
    """The height and width of an image in pixels."""
    patch_size: int = 14
    """The height and width of a patch in pixels."""
    pixel_channels: int = 3
    width: int = 1280
    inner_width: int = 5120
    layers: int = 32
    heads: int = 16
    activation: str = "gelu"
    eps: float = 1e-5
    projection_width: int | None = 1024
    """The features of an image; None for an encoder without projection."""

    def __post_init__(self) -> None:
        _check(self.activation, self.layers)

    @property
    def patches(self) -> int:
        """The number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json` of a CLIP image encoder, or of a whole CLIP.

        Raises:
            ModelError: The configuration has an unsupported setting.
        """
        read = Published(
            data.get("vision_config") or data, "CLIPVisionModelWithProjection", table=CLIP_IMAGE
        )
        is_projected = "CLIPVisionModel" not in (data.get("architectures") or ())
        return cls(
            image_size=read.value("image_size", 224),
            patch_size=read.value("patch_size", 32),
            pixel_channels=read.value("num_channels", 3),
            width=read.value("hidden_size", 768),
            inner_width=read.value("intermediate_size", 3072),
            layers=read.value("num_hidden_layers", 12),
            heads=read.value("num_attention_heads", 12),
            activation=read.value("hidden_act", "quick_gelu"),
            eps=read.value("layer_norm_eps", 1e-5),
            projection_width=read.value("projection_dim", 512) if is_projected else None,
        )


def _check(activation: str, layers: int) -> None:
    if activation not in ("quick_gelu", "gelu"):
        raise ModelError(
            f"CLIP has no activation named {activation!r}.", hint="Try quick_gelu or gelu."
        )
    if layers < 1:
        raise ModelError(f"CLIP with {layers} layers encodes nothing.", hint="Try layers=1.")
