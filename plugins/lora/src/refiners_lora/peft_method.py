"""Refuses files of methods that are not read, and LoRAs for other families, by their keys."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from refiners_core.errors import WeightsError

METHODS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "an AdaLoRA": r"\.lora_E(\.|$)",
        "a VeRA": r"(^|\.)vera_(lambda_[bd]|A|B)(\.|$)",
        "a FourierFT": r"\.fourierft_spectrum",
        "an HRA": r"\.hra_u",
        "a LoRA that also trains tokens": r"\.token_adapter\.",
        "a file that replaces whole weights": r"\.(set_weight|reshape_weight)$",
        "a prompt of trained tokens": r"(^|\.)prompt_embeddings$",
    }.items()
}
"""Methods that are not read, by patterns of their keys; the first match counts."""

FAMILIES: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "Flux": r"(^|[._])((double|single)_blocks|single_transformer_blocks)[._]",
        "Stable Diffusion 3": r"(^|[._])joint_blocks[._]|^(lora_te3_|text_encoder_3\.)"
        r"|^(lora_)?transformer[._]transformer_blocks[._]",
        "Stable Cascade": r"^lora_prior_|^prior[._]",
        "a language model": r"(^|\.)(model\.layers|h|encoder\.layer|decoder\.layers)\.\d+\.",
        "a diffusion transformer": r"^(lora_)?transformer[._]"
        r"|^(diffusion_model|lora_unet)[._]blocks[._]\d+",
    }.items()
}
"""Families of models by patterns of their layer names."""


def check_method(path: Path, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> None:
    """Refuses a file of a method that is not read, or for another family of models.

    Args:
        path: The file, for messages.
        shapes: The shapes of its tensors by key.
        names: The layers for which it holds changes.

    Raises:
        WeightsError: The file is of another kind; the message names it if it is known.
    """
    for method, pattern in METHODS.items():
        if keys := [key for key in shapes if pattern.search(key)]:
            raise WeightsError(
                f"{path.name} is {method}: {len(keys)} of its {len(shapes)} tensors are like "
                f"{keys[0]!r}. That method is not read.",
                hint="Give a LoRA, DoRA, LoHa, LoKr, OFT, BOFT, GLoRA, IA3 or a difference of "
                "weights.",
            )
    if not names:
        raise WeightsError(f"{path.name} is not a LoRA: it holds {_some(shapes)}.", hint=_HINT)
    for family, pattern in FAMILIES.items():
        if layers := [name for name in names if pattern.search(name)]:
            raise WeightsError(
                f"{path.name} is a LoRA for {family}: it names {layers[0]!r}.", hint=_HINT
            )


def _some(keys: Mapping[str, object]) -> str:
    shown = ", ".join(repr(key) for key in [*keys][:2]) or "no tensors"
    return shown + (f" and {len(keys) - 2} more" if len(keys) > 2 else "")


_HINT: Final = "Give a LoRA that was trained on Stable Diffusion 1.5 or XL."
