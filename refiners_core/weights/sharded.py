"""Weights that are published as several files, with an index that says what is in which."""

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
        path: The file; or the index, `model.safetensors.index.json` for instance, beside its files.
        device: Where the tensors are put.

    Raises:
        WeightsError: A file is missing, truncated or of another format, or has not what the index
            says.
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
            f"{path} says that {shard_of[lost[0]]} has {lost[0]}, but it is not there"
            + (f", and {len(lost) - 1} more like it." if len(lost) > 1 else "."),
            hint="Fetch the model again: its files are of different versions.",
        )
    return tensors


def _shards(index: Path) -> Mapping[str, str]:
    """Returns for each tensor the name of its file."""
    try:
        said: Any = json.loads(index.read_text("utf-8"))
        shards = dict(cast("Mapping[Any, Any]", said["weight_map"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{index} is no index of weights: {type(error).__name__}: {error}.",
            hint="Fetch it again.",
        ) from error
    for key, shard in shards.items():
        # The files lie beside their index: it must not lead anywhere else.
        if not isinstance(shard, str) or shard in ("", "..") or Path(shard).name != shard:
            raise WeightsError(
                f"{index} says that {key} is in {shard!r}, which is no file name.",
                hint="Fetch the model from whom you trust.",
            )
    missing = [one for one in dict.fromkeys(shards.values()) if not index.with_name(one).is_file()]
    if missing:
        raise WeightsError(
            f"{index} names {len({*shards.values()})} files, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there.",
            hint="Fetch what is missing into the same folder.",
        )
    return shards
