"""The layouts in which changes are saved: diffusers' for plain LoRAs, PEFT's for those of language
models, LyCORIS' for all others."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from refiners_core.errors import AdapterError, WeightsError
from refiners_lora.alpha import Strength, configured
from refiners_lora.language_name import LANGUAGE_PART
from refiners_lora.language_saved import FILE, language_config, language_tensors
from refiners_lora.layer_name import Published
from refiners_lora.lora_file import CONFIG, METADATA
from refiners_lora.method.change import Change
from refiners_lora.method.low_rank import LowRank
from refiners_lora.method.rotation import Rotation
from refiners_lora.role import written

Changes = Sequence[tuple[Published, Change]]
"""The changes of a LoRA and the names of their layers."""


def published(changes: Changes) -> dict[str, Tensor]:
    """Returns the weights under published keys.

    Args:
        changes: The changes; plain LoRAs get the keys of diffusers, those of language models the
            keys of PEFT, other methods those of LyCORIS.

    Raises:
        AdapterError: A change of a language model is not a plain LoRA.
    """
    if _is_of_language(changes):
        return language_tensors(_plain_ones(changes))
    if _is_plain(changes):
        return {
            f"{place.part}.{place.name}.lora_{half}.weight": weight
            for place, change in changes
            for half, weight in zip("AB", _factors(change), strict=True)
        }
    tensors: dict[str, Tensor] = {}
    for place, change in changes:
        name = place.flat
        for role, tensor in change.published().items():
            tensors[f"{name}.{written(role)}"] = tensor
        if (offset := change.offset) is not None:
            tensors[f"{name}.diff_b"] = offset
        if change.rank is not None or isinstance(change, Rotation):
            tensors[f"{name}.alpha"] = torch.tensor(change.alpha)
    return tensors


def settings(changes: Changes) -> dict[str, str]:
    """Returns the metadata of the file: PEFT's configuration of a plain LoRA."""
    if not _is_plain(changes):
        return {}
    if _is_of_language(changes):
        return {METADATA: json.dumps(language_config(_plain_ones(changes)), sort_keys=True)}
    parts: dict[str, dict[str, Strength]] = {}
    for place, change in changes:
        strength = Strength(change.rank or 1, change.alpha)
        parts.setdefault(place.part, {})[place.name] = strength
    config = {
        f"{part}.{field}": value
        for part, strengths in parts.items()
        for field, value in configured(strengths, part).items()
    }
    return {METADATA: json.dumps(config, sort_keys=True)}


def write_config(changes: Changes, path: Path) -> None:
    """Writes PEFT's configuration beside a LoRA of a language model that has PEFT's file name.

    Raises:
        WeightsError: The file cannot be written.
    """
    if path.name != FILE or not _is_of_language(changes):
        return
    text = json.dumps(language_config(_plain_ones(changes)), indent=2, sort_keys=True)
    beside = path.with_name(CONFIG)
    try:
        beside.write_text(f"{text}\n", "utf-8")
    except OSError as error:
        raise WeightsError(
            f"{beside} cannot be written: {error.strerror}.", hint="Name another folder."
        ) from error


def _is_of_language(changes: Changes) -> bool:
    return any(place.part == LANGUAGE_PART for place, _ in changes)


def _plain_ones(changes: Changes) -> list[tuple[Published, Tensor, Tensor, float]]:
    if not _is_plain(changes):
        title = next(
            c.title for _, c in changes if type(c) is not LowRank or len(c.published()) > 2
        )
        raise AdapterError(
            f"{title} of a language model is not saved, only a plain LoRA is.",
            hint="Keep the folder that it was loaded from.",
        )
    return [(place, *_factors(change), change.alpha) for place, change in changes]


def _is_plain(changes: Changes) -> bool:
    return all(
        type(change) is LowRank and change.offset is None and len(change.published()) == 2
        for _, change in changes
    )


def _factors(change: Change) -> tuple[Tensor, Tensor]:
    weights = change.published()
    return weights["down"], weights["up"]
