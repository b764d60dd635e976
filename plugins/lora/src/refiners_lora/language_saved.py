"""The folder that PEFT reads: plain LoRAs of a language model, and their configuration."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from refiners_lora.alpha import Strength, configured
from refiners_lora.layer_name import Published
from refiners_lora.role import PEFT

FILE: Final = "adapter_model.safetensors"
"""The name of the file of weights in such a folder."""
Plain = tuple[Published, Tensor, Tensor, float]
"""A layer, its factors (rank, in) and (out, rank), and their alpha."""


class _Whole(NamedTuple):
    """The factors of a published layer."""

    down: Tensor
    up: Tensor
    alpha: float


def language_tensors(changes: Sequence[Plain]) -> dict[str, Tensor]:
    """Returns the weights of LoRAs under the keys of PEFT.

    Args:
        changes: The LoRAs; several of one published layer are written as one.
    """
    return {
        f"{PEFT}{name}.lora_{half}.weight": weight
        for name, whole in _wholes(changes).items()
        for half, weight in (("A", whole.down), ("B", whole.up))
    }


def language_config(changes: Sequence[Plain]) -> dict[str, Any]:
    """Returns PEFT's configuration of LoRAs."""
    wholes = _wholes(changes)
    strengths = {name: Strength(len(whole.down), whole.alpha) for name, whole in wholes.items()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": any(place.shares > 1 for place, *_ in changes),
        **configured(strengths, "decoder"),
    }


def _wholes(changes: Sequence[Plain]) -> dict[str, _Whole]:
    ordered = sorted(changes, key=lambda change: (change[0].name, change[0].share))
    return {
        name: _whole([*group])
        for name, group in groupby(ordered, key=lambda change: change[0].name)
    }


def _whole(shares: Sequence[Plain]) -> _Whole:
    """Returns the factors of a published layer from those of its shares.

    Shares of one LoRA have the same first factor. Otherwise the ranks of all shares add up, and a
    share without a LoRA gets rows of zeros.
    """
    place, down, up, alpha = shares[0]
    if place.shares == 1:
        return _Whole(down, up, alpha)
    is_one = len(shares) == place.shares and all(
        a.shape == down.shape and torch.equal(a, down) and other == alpha
        for _, a, _, other in shares
    )
    if is_one:
        return _Whole(down, torch.cat([b for _, _, b, _ in shares]), alpha)
    parts = {share[0].share: share for share in shares}
    rank = sum(len(a) for _, a, _, _ in shares)
    rows = [up.new_zeros(len(up), rank) for _ in range(place.shares)]
    column = 0
    for share, (_, a, b, each) in sorted(parts.items()):
        rows[share][:, column : column + len(a)] = b * (each / len(a))
        column += len(a)
    return _Whole(torch.cat([a for _, a, _, _ in shares]), torch.cat(rows), float(rank))
