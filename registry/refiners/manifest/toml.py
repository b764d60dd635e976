"""Reads untrusted TOML in linear time, and to values of bounded size.

tomllib takes quadratic time for keys of many parts, accepts integers of any length, and raises
several kinds of errors. Manifests, policies, advisories, locks and project files are all read by
`load_toml`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final, cast

LARGEST: Final = 1_000_000
"""The maximum size in bytes of a file that people write."""
_DEEPEST: Final = 50
"""The maximum depth of nested tables and lists."""
_PARTS: Final = 30
"""The maximum number of parts of a dotted key, for which tomllib is still fast."""
_MARKS: Final = re.compile(r"(?<=[\w\"' \t-])\.(?=[\w\"' \t-])|[,=\[\]{}\n]")
_OTHER_MARKS: Final = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class TomlError(ValueError):
    """A file that is not TOML, or exceeds a limit; the message has the reason."""


def load_toml(path: Path, *, largest: int = LARGEST) -> tuple[dict[str, Any], str]:
    """Reads a file.

    Args:
        path: The file; a byte order mark, as editors on Windows write it, is skipped.
        largest: The maximum size in bytes.

    Returns:
        The tables, and the text of the file.

    Raises:
        OSError: The file cannot be opened.
        TomlError: The file is too large, not UTF-8, or not TOML.
    """
    with path.open("rb") as file:
        raw = file.read(largest + 1)
    if len(raw) > largest:
        raise TomlError(f"is larger than {largest} bytes")
    text = decoded(raw)
    return parse_toml(text), text


def decoded(raw: bytes) -> str:
    """Returns the text of a file in UTF-8, without a byte order mark.

    Raises:
        TomlError: The file has another encoding.
    """
    if (other := _OTHER_MARKS.get(raw[:2])) is not None:
        raise TomlError(f"cannot be read: it is in {other}; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TomlError(f"cannot be read: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Turns a text into tables.

    Raises:
        TomlError: The text is not TOML, nested too deeply, or has an integer of more than 64 bits,
            which TOML forbids.
    """
    parts = 0
    for mark in _MARKS.finditer(text):
        parts = parts + 1 if mark[0] == "." else 0
        if parts > _PARTS:
            line = text.count("\n", 0, mark.start()) + 1
            raise TomlError(f"is not TOML: a key of more than {_PARTS} parts (at line {line})")
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise TomlError("is not TOML: nested too deeply") from error
    except ValueError as error:  # int() refuses thousands of digits with a plain ValueError
        raise TomlError(f"is not TOML: {error}") from error
    _check_bounds(table)
    return table


def _check_bounds(table: dict[str, Any]) -> None:
    level: list[Any] = [table]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += cast("dict[str, Any]", item).values()
            elif isinstance(item, list):
                below += cast("list[Any]", item)
            elif isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise TomlError("is not TOML: an integer of more than 64 bits")
        level = below
        if not level:
            return
    raise TomlError(f"cannot be read: tables are nested more than {_DEEPEST} deep")
