"""Weights of PEFT that mean something only together with its configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_lora.peft_rotation import has_rotation, rotation
from refiners_lora.role import PEFT, unwrapped

TOKEN_IDS: Final = "token_ids"
"""The role of the ids of the tokens whose rows a file replaces, (tokens,)."""
_TINY: Final = 1e-5
"""The number that PEFT adds to the rank of an AdaLoRA before it divides by it."""


def in_our_form(
    path: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], float | None]:
    """Returns the weights of a layer in the form of a method, and an alpha if the form fixes it.

    An AdaLoRA, `B diag(E) A`, becomes a LoRA; an OFT or BOFT its rotations; trained tokens get
    their ids.

    Args:
        path: The file, for messages.
        name: The layer, as the file spells it.
        tensors: The weights by PEFT's names.
        config: PEFT's configuration.

    Raises:
        WeightsError: The configuration that the weights need is missing or contradicts them.
    """
    if has_rotation(tensors):
        beside = {role: tensors[role] for role in ("whole", "whole_bias") if role in tensors}
        return {**rotation(path, name, tensors, config), **beside}, None
    if "adaptive_e" in tensors:
        return _adaptive(path, name, tensors, config)
    if "tokens" in tensors:
        return {**tensors, TOKEN_IDS: _token_ids(path, name, tensors["tokens"], config)}, None
    return dict(tensors), None


def _adaptive(
    path: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], float]:
    """Returns the factors of an AdaLoRA (arXiv:2303.10512, section 3.1) and their alpha.

    PEFT divides alpha by the rank at the start, whatever rank is left.
    """
    alpha, start = config.get("lora_alpha"), config.get("init_r")
    if not isinstance(alpha, int | float) or not isinstance(start, int):
        raise WeightsError(
            f"{path.name} is an AdaLoRA without its configuration: adapter_config.json, with "
            "lora_alpha and init_r, is not beside it.",
            hint="Give the folder that PEFT wrote, with adapter_config.json in it.",
        )
    a, b, e = (tensors.get(f"adaptive_{half}") for half in "abe")
    if a is None or b is None or e is None:
        raise WeightsError(
            f"{path.name} is incomplete: the AdaLoRA of {name!r} has not all of lora_A, lora_B and "
            "lora_E.",
            hint="Fetch it again.",
        )
    if a.ndim != 2 or b.ndim != 2 or not len(a) == b.shape[1] == e.numel():
        raise WeightsError(
            f"{path.name} is damaged: the weights of {name!r} do not share a rank: A is "
            f"{[*a.shape]}, B is {[*b.shape]}, E is {[*e.shape]}.",
            hint="Fetch it again.",
        )
    kept = _kept(name, config)
    if kept is not None and len(kept) == len(a):
        a, b, e = a[kept], b[:, kept], e[kept]
    alpha = alpha if alpha > 0 else start
    down = a.float() * e.float().view(-1, 1)
    rest = {role: part for role, part in tensors.items() if not role.startswith("adaptive_")}
    return {"down": down, "up": b.float(), **rest}, alpha * len(a) / (start + _TINY)


def _kept(name: str, config: Mapping[str, Any]) -> list[bool] | None:
    """Returns which ranks of a layer the configuration keeps; None if it does not say."""
    patterns: Any = config.get("rank_pattern")
    for key, mask in patterns.items() if isinstance(patterns, Mapping) else ():
        layer = unwrapped(str(key)).removeprefix(PEFT).partition(".lora_E")[0]
        if layer == name and isinstance(mask, list):
            return [bool(each) for each in cast("list[Any]", mask)]
    return None


def _token_ids(path: Path, name: str, rows: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Returns the ids of trained tokens, which only the configuration has."""
    stated: Any = config.get("trainable_token_indices") or config.get("token_indices")
    if isinstance(stated, Mapping):
        endings = (ids for end, ids in stated.items() if f".{name}".endswith(f".{end}"))
        stated = next(endings, None)
    ids: Sequence[Any] = stated if isinstance(stated, list) else ()
    is_known = all(isinstance(i, int) and i >= 0 for i in ids) and len({*ids}) == len(ids) > 0
    if not is_known or rows.ndim != 2 or len(ids) != len(rows):
        raise WeightsError(
            f"{path.name} replaces {len(rows)} tokens of {name!r}; its configuration names "
            f"{len(ids) or 'none'} by trainable_token_indices.",
            hint="Give the folder that PEFT wrote, with adapter_config.json in it.",
        )
    return torch.tensor(list(ids))
