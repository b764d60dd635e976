"""The first bytes of a safetensors file: which tensors it holds, before any of them is read."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import msgspec

from refiners.errors import IntegrityError
from refiners.verdict import Header

_LARGEST: Final = 100_000_000  # bytes; the limit of the format itself
_LENGTH: Final = struct.Struct("<Q")


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_header(path: Path, *, dist: str | None = None) -> Header:
    """Reads the shapes of the tensors in a safetensors file.

    Raises:
        IntegrityError: It is something else, or cut off.
    """
    try:
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            if length > _LARGEST:
                raise ValueError(f"its header claims {length} bytes")
            text = file.read(length)
        if len(text) < length:
            raise ValueError("it ends within its header")
        return parse_header(text)
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise IntegrityError(
            f"{path} is no readable safetensors file: {error}.",
            hint="Fetch it again, or ask the publisher for a good file.",
            dist=dist,
        ) from error


def parse_header(text: bytes) -> Header:
    """Returns the shapes that a header names.

    Raises:
        ValueError: It is no header of a safetensors file.
    """
    raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    raw.pop("__metadata__", None)
    tensors = {name: msgspec.json.decode(one, type=_Tensor) for name, one in raw.items()}
    for name, tensor in tensors.items():
        if min(tensor.shape, default=0) < 0:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}")
    return {name: tensor.shape for name, tensor in tensors.items()}
