"""Decodes the tensors of a safetensors file that hold a single number, without torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Final

from refiners.hub.tensor_header import Header

_FORMATS: Final[Mapping[str, str]] = {
    "F64": "<d",
    "F32": "<f",
    "F16": "<e",
    "I64": "<q",
    "I32": "<i",
    "I16": "<h",
    "U8": "<B",
}
_WIDEST: Final = 8
"""The most bytes of one number."""
_MOST: Final = 20_000
"""The most numbers that are read from one file."""


def numbers_in(
    header: Header, names: list[str], read: Callable[[int, int], bytes]
) -> dict[str, float]:
    """Returns the finite numbers of one-element tensors.

    Args:
        header: The header of the file.
        names: The tensors.
        read: Returns bytes of the data behind the header, given their first and last place.
    """
    numbers: dict[str, float] = {}
    for name in names[:_MOST]:
        place = header.tensors[name]
        first, last = place.data_offsets
        if math.prod(place.shape) == 1 and 0 <= first <= last <= first + _WIDEST:
            number = _decoded(place.dtype, read(first, last))
            if number is not None and math.isfinite(number):
                numbers[name] = number
    return numbers


def _decoded(dtype: str, data: bytes) -> float | None:
    if dtype == "BF16":  # the upper half of a float32
        dtype, data = "F32", b"\0\0" + data
    layout = _FORMATS.get(dtype)
    if layout is None or len(data) != struct.calcsize(layout):
        return None
    return float(struct.unpack(layout, data)[0])
