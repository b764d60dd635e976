"""Reads the header of a safetensors file: the names and shapes of its tensors."""

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
"""The bytes that contain nearly every header."""
LARGEST: Final = 100_000_000
"""The most bytes of a header, by the format's own limit."""
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
        IntegrityError: The file is in another format, or truncated.
    """
    try:
        with open_regular(path) as file:
            return header_in(iter(partial(file.read, _PIECE), b""))
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path} is not a readable safetensors file: {error}.",
            hint="Fetch it again, or ask the publisher for an intact file.",
            dist=dist,
        ) from error


def header_in(pieces: Iterable[bytes]) -> Header:
    """Reads the shapes of the tensors from the first bytes of a file, and no more of them.

    Args:
        pieces: The bytes of the file, in order, in pieces of any size.

    Raises:
        ValueError: The bytes are not the beginning of a safetensors file.
        CutOffError: The bytes end before the header does.
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
    """Returns the shapes of the tensors in a header.

    Raises:
        ValueError: The text is not the header of a safetensors file.
    """
    raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    raw.pop("__metadata__", None)
    tensors = {name: msgspec.json.decode(entry, type=_Tensor) for name, entry in raw.items()}
    for name, tensor in tensors.items():
        if min(tensor.shape, default=0) < 0:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}")
    return {name: tensor.shape for name, tensor in tensors.items()}
