"""Tiny language models of transformers in every supported family, with random weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import transformers
from torch import nn

WORDS: Final = 60
_SIZES: Final = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
LLAMA3: Final = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
RELEASED_SCALING: Final = LLAMA3 | {"original_max_position_embeddings": 8192}
KINDS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "llama": ("Llama", _SIZES),
    "llama-3": ("Llama", _SIZES | {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "mistral": ("Mistral", _SIZES | {"sliding_window": 9}),
    "qwen2": ("Qwen2", _SIZES | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", _SIZES | {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma2": (
        "Gemma2",
        _SIZES
        | {
            "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8,
            "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
        },
    ),
    "gpt2": (
        "GPT2", {"vocab_size": WORDS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}
    ),
}  # fmt: skip
"""The class of each kind, and its configuration."""
SLOWLY: Final = ("mistral", "qwen2")
"""Kinds that have the tree of Llama, but for a window and biases: some tests run on them only if
slow tests do."""


def sampled(kinds: Iterable[str]) -> list[Any]:
    """Returns kinds as parameters of a test, those of `SLOWLY` marked as slow."""
    return [pytest.param(k, marks=pytest.mark.slow) if k in SLOWLY else k for k in kinds]


def config_of(kind: str, **changes: Any) -> Any:
    """Returns transformers' configuration of a kind."""
    name, sizes = KINDS[kind]
    special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{name}Config")(**{**sizes, **special, **changes})
    config._attn_implementation = "eager" if kind == "gemma2" else "sdpa"
    return config


def build(config: Any) -> Any:
    """Builds transformers' model of a configuration."""
    name = type(config).__name__.removesuffix("Config")
    return getattr(transformers, f"{name}{'LMHeadModel' if name == 'GPT2' else 'ForCausalLM'}")(
        config
    )


def peer_of(kind: str, **changes: Any) -> Any:
    """Returns a model whose weights are large enough for differences to show."""
    torch.manual_seed(0)
    model = build(config_of(kind, **changes)).eval()
    for name, weight in model.named_parameters():
        is_scale = weight.ndim == 1 and ("norm" in name or ".ln_" in name) and kind != "gemma2"
        scale = 0.25 if weight.ndim > 1 else 0.2
        weight.data = torch.randn(weight.shape) * scale + (is_scale and "bias" not in name)
    return model


def publish(model: nn.Module, folder: Path, **options: Any) -> Path:
    """Saves a model in its official layout and returns the folder."""
    model.save_pretrained(folder, **options)
    return folder
