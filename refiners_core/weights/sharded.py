"""Weights published as several files with an index of their tensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from refiners_core.errors import WeightsError
from refiners_core.weights.tensor_file import TensorFile

_INDEX: Final = ".json"


def read(path: str | Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns all tensors of a safetensors file, or of all files of an index, memory-mapped.

    Args:
        path: The file; or the index, such as `model.safetensors.index.json`, beside its files.
        device: The device for the tensors.

    Raises:
        WeightsError: A file is missing, truncated or of another format, or lacks a tensor that the
            index lists.
    """
    path = Path(path)
    if path.suffix != _INDEX:
        with TensorFile(path, device) as file:
            return {key: file.tensor(key) for key in file.names()}
    shard_of = _shards(path)
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(shard_of.values()):
        with TensorFile(path.with_name(shard), device) as file:
            for key in file.names():
                if shard_of.get(key, shard) == shard:
                    tensors[key] = file.tensor(key)
    if lost := [key for key in shard_of if key not in tensors]:
        raise WeightsError(
            f"{path} lists {lost[0]} in {shard_of[lost[0]]}, which does not contain it"
            + (f", nor {len(lost) - 1} more." if len(lost) > 1 else "."),
            hint="Download the model again: its files are of different versions.",
        )
    return tensors


def _shards(index: Path) -> Mapping[str, str]:
    """Returns the file name of each tensor.

    Raises:
        WeightsError: The index cannot be read, leads outside its folder, or names missing files.
    """
    try:
        document: Any = json.loads(index.read_text("utf-8"))
        shards = dict(cast("Mapping[Any, Any]", document["weight_map"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{index} is not an index of weights: {type(error).__name__}: {error}.",
            hint="Download it again.",
        ) from error
    for key, shard in shards.items():
        # The files are beside their index, which must not lead anywhere else.
        if not isinstance(shard, str) or shard in ("", "..") or Path(shard).name != shard:
            raise WeightsError(
                f"{index} lists {key} in {shard!r}, which is not a file name.",
                hint="Download the model from a publisher that you trust.",
            )
    names = dict.fromkeys(shards.values())
    missing = [name for name in names if not index.with_name(name).is_file()]
    if missing:
        raise WeightsError(
            f"{index} names {len(names)} files, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing.",
            hint="Download the missing files into the same folder.",
        )
    return shards
