"""Refuses files of methods that are not read, and LoRAs for other families, by their keys."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from refiners_core.errors import WeightsError

METHODS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "a VeRA": r"(^|\.)vera_(lambda_[bd]|A|B)(\.|$)",
        "a FourierFT": r"\.fourierft_spectrum",
        "an HRA": r"\.hra_u",
        "a file that replaces whole weights": r"\.(set_weight|reshape_weight)$",
        "a prompt of trained tokens": r"(^|\.)prompt_embeddings$",
    }.items()
}
"""Methods that are not read, by patterns of their keys; the first match counts."""

DIFFUSION: Final = "Stable Diffusion"
LANGUAGE: Final = "a language model"
FAMILIES: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "Flux": r"(^|[._])((double|single)_blocks|single_transformer_blocks)[._]",
        "Stable Diffusion 3": r"(^|[._])joint_blocks[._]|^(lora_te3_|text_encoder_3\.)"
        r"|^(lora_)?transformer[._]transformer_blocks[._]",
        "Stable Cascade": r"^lora_prior_|^prior[._]",
        LANGUAGE: r"(^|\.)(model\.layers|h|encoder\.layer|decoder\.layers)\.\d+\."
        r"|^(model\.embed_tokens|lm_head|transformer\.wte)$",
        DIFFUSION: r"^lora_(unet|te[12]?)_|^(unet|text_encoder(_2)?)\.|(down|up)_blocks|mid_block",
        "a diffusion transformer": r"^(lora_)?transformer[._]"
        r"|^(diffusion_model|lora_unet)[._]blocks[._]\d+",
    }.items()
}
"""Families of models by patterns of their layer names."""


def check_method(path: Path, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> None:
    """Refuses a file of a method that is not read.

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
        raise WeightsError(
            f"{path.name} is not a LoRA: it holds {_some(shapes)}.",
            hint="Give a file that a trainer of LoRAs wrote.",
        )


def check_family(path: Path, names: Sequence[str]) -> None:
    """Refuses a file for another family of models than Stable Diffusion.

    Args:
        path: The file, for messages.
        names: The layers for which it holds changes.

    Raises:
        WeightsError: The names of the layers are those of another family.
    """
    for family, pattern in FAMILIES.items():
        if family == DIFFUSION:
            continue
        if layers := [name for name in names if pattern.search(name)]:
            raise WeightsError(
                f"{path.name} is a LoRA for {family}: it names {layers[0]!r}.",
                hint="Give a LoRA that was trained on Stable Diffusion 1.5 or XL.",
            )


def is_of_language(names: Sequence[str]) -> bool:
    """Whether names of layers are those of a language model."""
    return any(FAMILIES[LANGUAGE].search(name) for name in names)


def family_of(names: Sequence[str]) -> tuple[str, str] | None:
    """Returns the family of image models that names of layers show, and the name that shows it."""
    for family, pattern in FAMILIES.items():
        if family != LANGUAGE and (layers := [name for name in names if pattern.search(name)]):
            return family, layers[0]
    return None


def _some(keys: Mapping[str, object]) -> str:
    shown = ", ".join(repr(key) for key in [*keys][:2]) or "no tensors"
    return shown + (f" and {len(keys) - 2} more" if len(keys) > 2 else "")
