"""The fields of PEFT's configurations: those that are followed, and those that are refused."""

from collections.abc import Mapping
from typing import Any, Final

from refiners_core.errors import WeightsError

_ORIGIN: Final = frozenset(
    ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
     "revision", "task_type")
)  # fmt: skip
"""Fields about where the file comes from."""
_CHOICE: Final = frozenset(
    ("exclude_modules", "fan_in_fan_out", "init_weights", "layers_pattern", "layers_to_transform",
     "target_modules")
)  # fmt: skip
"""Fields that chose the layers to train, which the file names, and how these began."""
_TOKENS: Final = frozenset(
    ("num_attention_heads", "num_layers", "num_transformer_submodules", "num_virtual_tokens",
     "token_dim")
)  # fmt: skip
KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "PREFIX_TUNING": _TOKENS | {"encoder_hidden_size", "init_weights", "prefix_projection"},
    "PROMPT_TUNING": _TOKENS
    | {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs",
       "tokenizer_name_or_path"},
    "P_TUNING": _TOKENS
    | {"encoder_dropout", "encoder_hidden_size", "encoder_num_layers",
       "encoder_reparameterization_type"},
    "VERA": _CHOICE | {"d_initial", "projection_prng_key", "r", "save_projection", "vera_dropout"},
    "LN_TUNING": _CHOICE,
    "FOURIERFT": _CHOICE | {"n_frequency", "n_frequency_pattern", "random_loc_seed", "scaling"},
}  # fmt: skip
"""For each method, the fields that are followed, or that change nothing once it is trained."""
_NEUTRAL: Final[Mapping[str, Any]] = {"bias": "none"}
"""The values of fields that are not followed, at which they change nothing; others do so where they
are empty."""


def check_fields(file: str, method: str, config: Mapping[str, Any]) -> None:
    """Refuses a configuration with a field that changes the result and is not followed.

    Args:
        file: The name of the file, for messages.
        method: The method, as PEFT names it.
        config: The fields.

    Raises:
        WeightsError: There is such a field; the message names it.
    """
    known = KNOWN[method] | _ORIGIN
    for name, value in config.items():
        if name in known or not value or value == _NEUTRAL.get(name):
            continue
        raise WeightsError(
            f"{file} has {name} = {value!r} in its configuration, which is not followed.",
            hint=f"Train it without {name}."
            if "num_virtual_tokens" in known
            else "Merge it with PEFT: "
            'model.merge_and_unload().save_pretrained("./merged"); then load_model("./merged").',
        )
    if (parts := config.get("num_transformer_submodules")) not in (None, 1):
        raise WeightsError(
            f"{file} has learned tokens for {parts} transformers, as a model with an encoder and a "
            "decoder has; a language model here is a decoder alone.",
            hint="Give an adapter that was trained with task_type CAUSAL_LM.",
        )


def number_in(file: str, config: Mapping[str, Any], name: str, kind: type[Any] = int) -> Any:
    """Returns a number that the tensors do not tell.

    Raises:
        WeightsError: The configuration is missing, lacks the field or has no number there.
    """
    value: Any = config.get(name)
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if is_number:
        return value
    fact = f"has {name} = {value!r}" if name in config else f"has no {name}" if config else ""
    raise WeightsError(
        f"the configuration of {file} {fact}." if fact else
        f"{file} has no adapter_config.json beside it, which has its {name}.",
        hint=f"Put adapter_config.json, with {name}, into the folder of the file.",
    )  # fmt: skip
