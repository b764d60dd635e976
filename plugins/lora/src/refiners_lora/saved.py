"""The layouts in which changes are saved: diffusers' for plain LoRAs, LyCORIS' for all others."""

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from refiners_lora.alpha import Strength, configured
from refiners_lora.layer_name import Published
from refiners_lora.lora_file import METADATA
from refiners_lora.method.change import Change
from refiners_lora.method.low_rank import LowRank
from refiners_lora.method.rotation import Rotation
from refiners_lora.role import written

Changes = Sequence[tuple[Published, Change]]
"""The changes of a LoRA and the names of their layers."""


def published(changes: Changes) -> dict[str, Tensor]:
    """Returns the weights under published keys.

    Args:
        changes: The changes; plain LoRAs get the keys of diffusers, other methods those of LyCORIS.
    """
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


def _is_plain(changes: Changes) -> bool:
    return all(
        type(change) is LowRank and change.offset is None and len(change.published()) == 2
        for _, change in changes
    )


def _factors(change: Change) -> tuple[Tensor, Tensor]:
    weights = change.published()
    return weights["down"], weights["up"]
