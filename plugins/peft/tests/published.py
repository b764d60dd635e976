"""Random adapters for the tiny language model, in the folders that PEFT writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import refiners
import torch
from torch import Tensor

from refiners_core import Adapter
from refiners_core.models.decoder import LanguageModel
from refiners_core.testing import tiny_language_model
from refiners_core.weights import write

WIDTH, KEYS, LAYERS = 16, 8, 2  # of the tiny language model
LINEAR: Final = {
    "self_attn.q_proj": (16, 16),
    "self_attn.v_proj": (16, 8),
    "mlp.down_proj": (24, 16),
}
METHODS: Final = ("prefix-tuning", "prompt-tuning", "vera", "ln-tuning", "fourier-ft")
CHANGES: Final = ("vera", "ln-tuning", "fourier-ft")
VIRTUAL: Final = ("prefix-tuning", "prompt-tuning")
IDS: Final = torch.tensor([[5, 9, 200, 31, 7, 64]])


def layer(index: int, name: str, role: str) -> str:
    return f"base_model.model.model.layers.{index}.{name}.{role}"


def contents(
    method: str, seed: int = 0, tokens: int = 3
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns random tensors of an adapter, and its configuration."""
    torch.manual_seed(seed)
    config: dict[str, Any] = {"base_model_name_or_path": "tiny/llama", "task_type": "CAUSAL_LM"}
    if method in VIRTUAL:
        columns = WIDTH if method == "prompt-tuning" else 2 * LAYERS * KEYS
        tensors = {"prompt_embeddings": torch.randn(tokens, columns)}
        config |= {"num_virtual_tokens": tokens, "num_transformer_submodules": 1}
        return tensors, config | {"peft_type": method.upper().replace("-", "_")}
    places = [(layer(i, name, ""), *size) for i in range(LAYERS) for name, size in LINEAR.items()]
    places.append(("base_model.model.lm_head.", WIDTH, 258))
    if method == "vera":
        tensors = {
            f"{place}{role}": torch.randn(size) * 0.7
            for place, _, outputs in places
            for role, size in (("vera_lambda_d", 4), ("vera_lambda_b", outputs))
        }
        shared = {"vera_A": torch.randn(4, 24), "vera_B": torch.randn(258, 4)}
        tensors |= {f"base_model.{name}": tensor for name, tensor in shared.items()}
        more = {"peft_type": "VERA", "r": 4, "save_projection": True, "projection_prng_key": 3}
    elif method == "ln-tuning":
        names = [layer(i, "input_layernorm", "ln_tuning_layers.weight") for i in range(LAYERS)]
        names.append("base_model.model.model.norm.ln_tuning_layers.weight")
        tensors, more = {name: torch.randn(WIDTH) for name in names}, {"peft_type": "LN_TUNING"}
    else:
        tensors = {f"{place}fourierft_spectrum": torch.randn(9) for place, *_ in places}
        more = {"peft_type": "FOURIERFT", "n_frequency": 9, "scaling": 60.0}
        more |= {"random_loc_seed": 7 + seed}
    return tensors, {**config, **more, "target_modules": [*LINEAR], "bias": "none"}


def save(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> Path:
    """Writes a folder as PEFT does, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    write(dict(tensors), folder / "adapter_model.safetensors")
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def published(method: str, folder: Path, **options: Any) -> Path:
    """Writes a random adapter, and returns its folder."""
    return save(folder, *contents(method, **options))


def worn(method: str, folder: Path, model: LanguageModel, **options: Any) -> Adapter:
    """Puts a random adapter on a model."""
    return refiners.load_adapter(str(published(method, folder, **options)), model)


def language_model(kind: str = "llama") -> LanguageModel:
    """Builds a tiny model with features of a family; texts never end by themselves."""
    changes: Mapping[str, Mapping[str, Any]] = {
        "llama": {},
        "mistral": {"windows": (9, 9)},
        "gemma2": {
            **{"windows": (3, None), "norm": "rms-plus-one", "has_output_norm": True},
            **{"attention_cap": 5.0, "embedding_scale": 4.0},
        },
        "gpt2": {"rope": None, "norm": "layer", "places": 40},
    }
    return tiny_language_model(ends=(), **changes[kind])


def logits(model: LanguageModel, ids: Tensor, *adapters: Adapter) -> Tensor:
    """Returns the logits of a call with adapters at scale 1."""
    with torch.no_grad():
        return model.decoder(ids, context={a.scale_key: torch.tensor(1.0) for a in adapters})
