"""PEFT's OFT and BOFT as rotations: what their weights mean depends on the configuration."""

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from refiners_core.errors import Notice, WeightsError

ROTATION: Final = "input_rotation"
"""The role of rotations of the inputs, (stages, blocks, size, size)."""
_TERMS: Final = 5
_SINCE: Final = (0, 18)
"""The version of PEFT since which the series is that of `_series`."""


def has_rotation(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a layer are an OFT or BOFT as PEFT stores them."""
    return "oft_R" in tensors or "boft_R" in tensors


def rotation(
    path: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Returns the rotations that the weights of a layer are parameters of, in float32.

    An OFT has the upper triangles of skew matrices Q. Its rotation is `(I - Q)(I + Q)^-1`, or the
    first terms of the series of `(I + Q)(I - Q)^-1` if the configuration has `use_cayley_neumann`;
    the signs differ, as in PEFT. With `coft`, the norm of each Q is at most `eps / sqrt(blocks)`.

    Args:
        path: The file, for messages.
        name: The layer, for messages.
        tensors: The weights, by PEFT's names.
        config: PEFT's configuration.

    Raises:
        WeightsError: The configuration is missing, is of a version with another layout, or the
            weights are not square blocks.
    """
    if "boft_R" in tensors:
        whole = tensors["boft_R"].float()
        if whole.ndim != 4 or whole.shape[-1] != whole.shape[-2]:
            raise _damaged(path, name, whole)
        turned = {ROTATION: _cayley((whole - whole.mT) / 2)}
        rescale = tensors.get("boft_s")
        return turned if rescale is None else {**turned, "rescale": rescale.float().flatten()}
    if "oft_block_size" not in config:
        raise WeightsError(
            f"{path.name} is an OFT of PEFT without its configuration: adapter_config.json, which "
            "says how its rotations are computed, is not beside it, or is older than PEFT 0.14.",
            hint="Give the folder that PEFT wrote, with adapter_config.json in it.",
        )
    triangles = tensors["oft_R"].float()
    size = (1 + math.isqrt(1 + 8 * triangles.shape[-1])) // 2
    if triangles.ndim != 2 or size * (size - 1) // 2 != triangles.shape[-1]:
        raise _damaged(path, name, triangles)
    rows, columns = torch.triu_indices(size, size, 1)
    skew = triangles.new_zeros(len(triangles), size, size)
    skew[:, rows, columns] = triangles
    skew = skew - skew.mT
    if config.get("coft"):
        limit = float(config.get("eps", 6e-5)) / math.sqrt(len(skew))
        norms = skew.flatten(1).norm(dim=1).clamp_min(torch.finfo(skew.dtype).tiny)
        skew = skew * (limit / norms).clamp(max=1).view(-1, 1, 1)
    if config.get("use_cayley_neumann", False):
        _check_series(path, config)
        return {ROTATION: _series(skew, int(config.get("num_cayley_neumann_terms", _TERMS)))[None]}
    return {ROTATION: _cayley(skew)[None]}


def _check_series(path: Path, config: Mapping[str, Any]) -> None:
    """Refuses a series that an older version of PEFT computed in another way.

    Raises:
        WeightsError: The file is of PEFT before 0.18.
    """
    version = config.get("peft_version")
    match = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if match is None:
        warnings.warn(
            f"{path.name}: its configuration states no peft_version; its rotations are computed by "
            "the series of PEFT 0.18 and newer, which differs from that of older versions.",
            Notice,
            stacklevel=9,
        )
    elif tuple(map(int, match.groups())) < _SINCE:
        raise WeightsError(
            f"{path.name} is an OFT by the series of PEFT {version}, which computed another one "
            "than PEFT 0.18 and newer.",
            hint="Save it again with a newer PEFT, or train it with use_cayley_neumann=False.",
        )


def _cayley(skew: Tensor) -> Tensor:
    """Returns the rotations `(I - Q)(I + Q)^-1` of skew matrices Q."""
    identity = torch.eye(skew.shape[-1])
    return torch.linalg.solve(identity + skew, identity - skew, left=False)


def _series(skew: Tensor, terms: int) -> Tensor:
    """Returns `I + 2 Q + 2 Q^2 + ... + Q^(terms - 1)` for skew matrices Q.

    PEFT makes four terms of three, and of two `I + 2 Q`.
    """
    terms = 4 if terms == 3 else terms
    total = torch.eye(skew.shape[-1]).expand_as(skew)
    power = skew
    for term in range(1, terms):
        total = total + (1 if term == terms - 1 and term > 1 else 2) * power
        power = power @ skew
    return total


def _damaged(path: Path, name: str, tensor: Tensor) -> WeightsError:
    return WeightsError(
        f"{path.name} is damaged: the rotations of {name!r} are {list(tensor.shape)}.",
        hint="Fetch it again.",
    )
