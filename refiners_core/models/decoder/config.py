"""The sizes of a decoder, and where it differs from others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from refiners_core.errors import ModelError
from refiners_core.models.config_reader import Published
from refiners_core.models.decoder.config_format import FORMATS
from refiners_core.models.decoder.rope import Rope

Norm = Literal["rms", "rms-plus-one", "layer"]
"""The normalisation: by root mean square, the same with weights less one, or of layers."""
Activation = Literal["silu", "gelu-tanh"]


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes of a decoder-only transformer, and where its family differs from Llama."""

    family: str
    """The name of the family in adapters and manifests, such as `llama`."""
    vocabulary: int
    """The number of tokens that the decoder knows."""
    width: int
    """The features of a token."""
    inner_width: int
    """The features inside a feed-forward network."""
    layers: int
    heads: int
    kv_heads: int
    """The number of heads of keys and values, which groups of heads share."""
    head_width: int
    """The features of a head."""
    places: int
    """The number of tokens for which the decoder was trained."""
    eps: float = 1e-6
    """The number that norms add to the mean square."""
    rope: Rope | None = field(default_factory=Rope)
    """The rotation of queries and keys by their places; None for learned features of places."""
    windows: tuple[int | None, ...] = ()
    """For each layer, the number of tokens that a token attends to, itself included; None, and an
    empty tuple, for all before it."""
    norm: Norm = "rms"
    activation: Activation = "silu"
    is_gated: bool = True
    """Whether a feed-forward network multiplies its features by those of a second layer."""
    has_qkv_bias: bool = False
    has_output_bias: bool = False
    """Whether the last projection of attention has a bias."""
    has_inner_bias: bool = False
    """Whether the layers of feed-forward networks have a bias."""
    has_head_norm: bool = False
    """Whether the queries and keys of each head are normalised, before they are rotated."""
    has_output_norm: bool = False
    """Whether the outputs of attention and of feed-forward networks are normalised."""
    scales: tuple[float, ...] = ()
    """For each layer, the factor of `q k^T`; `1 / sqrt(head_width)` for an empty tuple."""
    attention_cap: float | None = None
    """The bound of `q k^T`; unlimited if None."""
    logit_cap: float | None = None
    """The bound of the logits; unlimited if None."""
    embedding_scale: float = 1.0
    """The factor of the features of tokens."""
    is_tied: bool = False
    """Whether the head shares its weight with the embedding."""
    begin: int | None = None
    """The token that begins a text, if there is one."""
    ends: tuple[int, ...] = ()
    """The tokens that end a text."""
    padding: int | None = None
    """The token that fills shorter rows of a batch, if there is one."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `config.json`.

        Raises:
            ModelError: The configuration is of another kind of model, or has an unsupported
                setting.
        """
        kind = data.get("model_type")
        if kind not in FORMATS:
            raise ModelError(
                f"model_type = {kind!r} is not a supported language model.",
                hint=f"Supported are {', '.join(FORMATS)}.",
            )
        read = Published(data, f"{kind} models", table=FORMATS[kind])
        sizes = _gpt2(read) if kind == "gpt2" else _llama(read, kind)
        end = data.get("eos_token_id")
        return cls(
            family=kind,
            vocabulary=read.value("vocab_size", 50257 if kind == "gpt2" else 32000),
            begin=read.data.get("bos_token_id"),
            ends=() if end is None else tuple(end) if isinstance(end, list | tuple) else (end,),
            padding=read.data.get("pad_token_id"),
            **sizes,
        )


def _llama(read: Published, kind: str) -> dict[str, Any]:
    """Returns the sizes of Llama and of the families that follow it."""
    layers, heads = read.value("num_hidden_layers", 32), read.value("num_attention_heads", 32)
    width = read.value("hidden_size", 4096)
    head_width = read.value("head_dim", _HEAD_WIDTHS.get(kind, width // heads))
    has_bias = read.value("attention_bias", False)
    sizes: dict[str, Any] = {
        "width": width,
        "inner_width": read.value("intermediate_size", 11008),
        "layers": layers,
        "heads": heads,
        "kv_heads": read.value("num_key_value_heads", heads),
        "head_width": head_width,
        "places": read.value("max_position_embeddings", 2048),
        "eps": read.value("rms_norm_eps", 1e-6),
        "rope": Rope.from_json(read),
        "windows": _windows(read, kind, layers),
        "has_qkv_bias": has_bias or kind == "qwen2",
        "has_output_bias": has_bias,
        "has_inner_bias": read.value("mlp_bias", False),
        "has_head_norm": kind == "qwen3",
        "is_tied": read.value("tie_word_embeddings", kind == "gemma2"),
    }
    if kind == "gemma2":
        scalar = float(read.data.get("query_pre_attn_scalar") or 256)
        sizes |= {
            "norm": "rms-plus-one",
            "activation": "gelu-tanh",
            "has_output_norm": True,
            "scales": (scalar**-0.5,) * layers,
            "attention_cap": _cap(read, "attn_logit_softcapping", 50.0),
            "logit_cap": _cap(read, "final_logit_softcapping", 30.0),
            "embedding_scale": width**0.5,
        }
    return sizes


def _gpt2(read: Published) -> dict[str, Any]:
    width, heads = read.value("n_embd", 768), read.value("n_head", 12)
    layers = read.value("n_layer", 12)
    scale = (width // heads) ** -0.5 if read.value("scale_attn_weights", True) else 1.0
    is_by_layer = read.value("scale_attn_by_inverse_layer_idx", False)
    return {
        "width": width,
        "inner_width": read.value("n_inner", 4 * width),
        "layers": layers,
        "heads": heads,
        "kv_heads": heads,
        "head_width": width // heads,
        "places": read.value("n_positions", 1024),
        "eps": read.value("layer_norm_epsilon", 1e-5),
        "rope": None,
        "norm": "layer",
        "activation": "gelu-tanh",
        "is_gated": False,
        "has_qkv_bias": True,
        "has_output_bias": True,
        "has_inner_bias": True,
        "scales": tuple([scale / (i + 1 if is_by_layer else 1) for i in range(layers)]),
        "is_tied": read.value("tie_word_embeddings", True),
    }


def _windows(read: Published, kind: str, layers: int) -> tuple[int | None, ...]:
    """Returns the window of each layer."""
    is_used = kind in ("mistral", "gemma2") or read.value("use_sliding_window", False)
    if kind == "llama" or not is_used:
        return ()
    # A null window means none, where an absent one means that of the released model.
    window = read.data.get("sliding_window", 4096)
    if window is None:
        return ()
    kinds = read.data.get("layer_types")
    if kinds is None and kind == "mistral":
        slides = [True] * layers
    elif kinds is None and kind == "gemma2":
        slides = [i % 2 == 0 for i in range(layers)]
    elif kinds is None:
        slides = [i >= read.value("max_window_layers", 28) for i in range(layers)]
    elif len(kinds) == layers and {*kinds} <= {"full_attention", _SLIDING}:
        slides = [item == _SLIDING for item in kinds]
    else:
        raise read.refusal("layer_types", f"full_attention or {_SLIDING} for each layer")
    return tuple([int(window) if is_sliding else None for is_sliding in slides])


def _cap(read: Published, key: str, default: float) -> float | None:
    """Returns a bound; null means none, where an absent one means that of the released model."""
    value = read.data.get(key, default)
    return None if value is None else float(value)


_SLIDING: Final = "sliding_attention"
_HEAD_WIDTHS: Final = {"qwen3": 128, "gemma2": 256}
"""The default features of a head, where they do not follow from the width."""
