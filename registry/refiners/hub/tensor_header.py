"""Reads the header of a safetensors file: the names and shapes of its tensors, and its metadata."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from refiners.errors import IntegrityError
from refiners.host.disk import open_regular

FIRST: Final = 100_000
"""The bytes that contain nearly every header."""
LARGEST: Final = 100_000_000
"""The most bytes of a header, by the format's own limit."""
START: Final = 8
"""The bytes before a header, which hold its length."""
_LENGTH: Final = struct.Struct("<Q")
_OTHERS: Final = {
    b"version ": "a Git LFS pointer; git lfs pull fetches the file itself",
    b"<!DOCTYP": "a web page",
    b"<!doctyp": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "a zip archive, as pickles of PyTorch are",
    b"GGUF": "a GGUF file",
}
"""The kinds of file that are found under the name of a safetensors file, by their first bytes."""
_PIECE: Final = 1 << 16
_METADATA: Final = "__metadata__"


class TensorPlace(msgspec.Struct, frozen=True):
    """The type of a tensor, and its place behind the header, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(dict[str, tuple[int, ...]]):
    """The shapes of the tensors in a safetensors file by name, and its metadata.

    Args:
        tensors: The tensors by name.
        metadata: The texts beside them.
        length: The bytes of the header.
    """

    def __init__(
        self,
        tensors: Mapping[str, TensorPlace],
        metadata: Mapping[str, str] | None = None,
        length: int = 0,
    ) -> None:
        super().__init__({name: tensor.shape for name, tensor in tensors.items()})
        self.tensors: Final = tensors
        self.metadata: Final[Mapping[str, str]] = metadata or {}
        self.length: Final = length


class CutOffError(ValueError):
    """The bytes end before the header does.

    Args:
        message: The message.
        needed: The bytes of the file up to the end of the header, as far as they are known.
        received: The bytes that were received.
    """

    def __init__(self, message: str, needed: int, received: bytes) -> None:
        super().__init__(message)
        self.needed = needed
        self.received = received


def read_header(path: Path, *, dist: str | None = None) -> Header:
    """Reads the header of a safetensors file.

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


def header_in(pieces: Iterable[bytes], received: bytes = b"") -> Header:
    """Reads the header from the first bytes of a file, and no more of them.

    Args:
        pieces: The bytes of the file, in order, in pieces of any size.
        received: The bytes before them.

    Raises:
        ValueError: The bytes are not the beginning of a safetensors file.
        CutOffError: The bytes end before the header does.
    """
    text = bytearray(received)
    needed = _needed(text)
    for piece in pieces:
        text += piece
        needed = _needed(text)
        if needed is not None and len(text) >= needed:
            break
    if needed is None or len(text) < needed:
        raise CutOffError("it ends within its header", needed or START + LARGEST, bytes(text))
    return parse_header(bytes(text[START:needed]))


def _needed(text: bytes | bytearray) -> int | None:
    """Returns the bytes up to the end of the header; None if too few are there to tell."""
    if len(text) < START:
        return None
    length = int(_LENGTH.unpack_from(text)[0])
    if length > LARGEST:
        if kind := next((kind for start, kind in _OTHERS.items() if text.startswith(start)), ""):
            raise ValueError(f"it is {kind}")
        raise ValueError(f"its header claims {length} bytes")
    return START + length


def parse_header(text: bytes) -> Header:
    """Returns the tensors and the metadata in a header.

    Raises:
        ValueError: The text is not the header of a safetensors file.
    """
    raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    metadata = _metadata(raw.pop(_METADATA, None))
    tensors = {name: msgspec.json.decode(entry, type=TensorPlace) for name, entry in raw.items()}
    for name, tensor in tensors.items():
        if min(tensor.shape, default=0) < 0:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}")
    return Header(tensors, metadata, len(text))


def _metadata(raw: msgspec.Raw | None) -> dict[str, str]:
    """Returns the texts in the metadata; other values, which the format forbids, are left out."""
    if raw is None:
        return {}
    values: Any = msgspec.json.decode(raw)
    items = values.items() if isinstance(values, dict) else ()
    return {str(key): value for key, value in items if isinstance(value, str)}
