"""The first bytes of a safetensors file: which tensors it holds, before any of them is read."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from refiners.errors import IntegrityError
from refiners.host.disk import open_regular

Header = Mapping[str, tuple[int, ...]]
"""The shapes of the tensors in a safetensors file, by name."""

FIRST: Final = 100_000
"""Bytes in which nearly every header lies."""
LARGEST: Final = 100_000_000
"""Bytes of a header; the limit of the format itself."""
_LENGTH: Final = struct.Struct("<Q")
_PIECE: Final = 1 << 16


class CutOffError(ValueError):
    """The bytes end before the header does."""


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
        with open_regular(path) as file:
            return header_in(iter(partial(file.read, _PIECE), b""))
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path} is no readable safetensors file: {error}.",
            hint="Fetch it again, or ask the publisher for a good file.",
            dist=dist,
        ) from error


def header_in(pieces: Iterable[bytes]) -> Header:
    """Reads the shapes of the tensors off the first bytes of a file, and takes no more of them.

    Args:
        pieces: The bytes of the file, in order; however many there are.

    Raises:
        ValueError: They are not the beginning of a safetensors file; a CutOffError if they end
            too early.
    """
    text = bytearray()
    length: int | None = None
    for piece in pieces:
        text += piece
        if length is None and len(text) >= _LENGTH.size:
            length = int(_LENGTH.unpack_from(text)[0])
            if length > LARGEST:
                raise ValueError(f"its header claims {length} bytes")
        if length is not None and len(text) >= _LENGTH.size + length:
            return parse_header(bytes(text[_LENGTH.size : _LENGTH.size + length]))
    raise CutOffError("it ends within its header")


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
