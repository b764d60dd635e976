"""The fields of PEFT's configurations: some are followed, some inform, others are refused."""

from collections.abc import Mapping
from typing import Any, Final

from refiners_core.errors import WeightsError

TYPES: Final = (*("LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "IA3", "TRAINABLE_TOKENS"),)
"""The methods that are read, as `peft_type` names them."""
_FOLLOWED: Final = frozenset(
    {
        "r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora",
        "use_dora", "bias", "lora_bias", "target_modules", "exclude_modules",
        "layers_to_transform", "layers_pattern", "modules_to_save",
        "trainable_token_indices", "token_indices", "feedforward_modules", "init_r",
        "oft_block_size", "coft", "eps", "use_cayley_neumann", "num_cayley_neumann_terms",
        "peft_version",
    }
)  # fmt: skip
_INFORMS: Final = frozenset(
    {
        # shown by the keys and shapes of the file
        "fan_in_fan_out", "block_share", "boft_block_size", "boft_block_num",
        "boft_n_butterfly_factor", "decompose_both", "decompose_factor",
        "use_effective_conv2d", "ensure_weight_tying",
        # the model and the task
        "task_type", "base_model_name_or_path", "revision", "auto_mapping",
        "inference_mode",
        # training
        "lora_dropout", "rank_dropout", "module_dropout", "boft_dropout",
        "rank_dropout_scale", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2",
        "orth_reg_weight", "total_step", "init_weights", "init_ia3_weights",
        "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_config",
        "megatron_core", "qalora_group_size", "runtime_config",
    }
)  # fmt: skip
_INITIAL: Final = "init_lora_weights"
_HARMLESS_INITIAL: Final = (None, True, False, "gaussian", "eva", "orthogonal")
"""The ways to begin a training that leave the weights of the base model as they are."""


def check_fields(origin: str, config: Mapping[str, Any]) -> None:
    """Refuses a configuration whose result is not followed.

    A field that is not known is harmless if it is off: None, False, 0 or empty.

    Args:
        origin: Where the configuration is, for messages.
        config: Its fields, or those of several components as `<component>.<field>`.

    Raises:
        WeightsError: A field changes the result in a way that is not followed.
    """
    for path, value in config.items():
        field = path.rpartition(".")[2]
        if field == "peft_type":
            if isinstance(value, str) and value not in TYPES:
                raise WeightsError(
                    f"{origin} has peft_type = {value!r}; of PEFT's methods, {', '.join(TYPES)} "
                    "are read.",
                    hint="Give an adapter of one of them.",
                )
        elif field == _INITIAL:
            if not any(value is known or value == known for known in _HARMLESS_INITIAL):
                raise _refused(origin, field, value, _SAVE_AS_LORA)
        elif field not in _FOLLOWED | _INFORMS and value not in (None, False, 0, "", [], {}):
            raise _refused(origin, field, value, "Give an adapter that was trained without it.")


def _refused(origin: str, field: str, value: Any, hint: str) -> WeightsError:
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return WeightsError(
        f"{origin} has {field} = {shown}, which changes the result and is not followed.", hint=hint
    )


_SAVE_AS_LORA: Final = (
    "Save it as a plain LoRA with PEFT: "
    "save_pretrained(folder, path_initial_model_for_weight_conversion=...)."
)
