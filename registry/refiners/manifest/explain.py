"""Lists every fault of an invalid manifest, each with its line.

Only invalid manifests are examined: msgspec reads valid ones, and stops at the first fault.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

_GUESSES: Final = 20
"""The number of unknown keys in a table for which known keys are suggested."""

Place = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""


@dataclass(frozen=True)
class ManifestFault:
    """One fault of a manifest."""

    place: Place
    what: str
    hint: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.place)
        name = f"{path.removeprefix('.')}: " if path else ""
        return f"{where}{name}{self.what}{f'. {self.hint}' if self.hint else ''}"


def examine(value: Any, kind: Any, place: Place = ()) -> tuple[Any, list[ManifestFault]]:
    """Checks a value against its type.

    Args:
        value: The value in the TOML.
        kind: A msgspec Struct, a dict, tuple or list type, or any type that msgspec reads.
        place: The keys and list positions that lead to the value.

    Returns:
        The value without keys that begin with `x-` (reserved for users), and all faults.
    """
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]  # TOML has no null: "X | None" is an optional X
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and isinstance(value, dict):
        return _examine_table(value, bare, place)
    faults: list[ManifestFault] = []
    if get_origin(bare) is dict and isinstance(value, dict):
        key_kind, item_kind = get_args(bare)
        for key in value:
            faults.extend(examine(key, key_kind, (*place, key))[1])
        pairs = {k: examine(v, item_kind, (*place, k)) for k, v in value.items()}
        value = {k: item for k, (item, _) in pairs.items()}
        faults.extend(fault for _, faulty in pairs.values() for fault in faulty)
    elif get_origin(bare) is tuple and isinstance(value, list):
        items = [examine(v, get_args(bare)[0], (*place, i)) for i, v in enumerate(value)]
        value = [item for item, _ in items]
        faults = [fault for _, faulty in items for fault in faulty]
    if not faults:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            faults.append(ManifestFault(place, _what(value, kind, error)))
    return value, faults


def _examine_table(table: dict[str, Any], kind: type[msgspec.Struct], place: Place):
    known = _fields_of(kind)
    faults: list[ManifestFault] = []
    kept: dict[str, Any] = {}
    for key, value in table.items():
        if key in known:
            kept[key], more = examine(value, known[key].type, (*place, key))
            faults.extend(more)
        elif not key.startswith("x-"):
            guess = _guess(key, known) if len(faults) < _GUESSES else ""
            faults.append(ManifestFault((*place, key), "no such key", guess))
    for name, field in known.items():
        if field.required and name not in table:
            faults.append(ManifestFault(place, f"{name!r} is missing"))
    return kept, faults


@cache
def _fields_of(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    return {field.encode_name: field for field in fields(kind)}


def _guess(key: str, known: Iterable[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def _what(value: Any, kind: Any, error: msgspec.ValidationError) -> str:
    for extra in get_args(kind)[1:] if get_origin(kind) is Annotated else ():
        if isinstance(extra, msgspec.Meta) and extra.description:
            return f"{_short(value)} should be {extra.description}"
    # msgspec appends its own path, " - at `$...`"; the fault has the place already
    return f"{_short(value)}: {str(error).split(' - at ')[0]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def with_lines(faults: list[ManifestFault], text: str) -> tuple[ManifestFault, ...]:
    """Adds the line of the nearest key in the text to each fault, and sorts by line."""
    lines = _lines(text)

    def line_of(place: Place) -> int | None:
        while place and place not in lines:
            place = place[:-1]
        return lines.get(place)

    return tuple(
        sorted((replace(f, line=line_of(f.place)) for f in faults), key=lambda f: f.line or 0)
    )


def _lines(text: str) -> dict[Place, int]:
    """Maps places to line numbers from 1, which tomllib does not report."""
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line.startswith("["):
            if not (keys := _keys(line.lstrip("["), "]")):
                continue  # a list over several lines
            table = _counted(keys, counts)
            if line.startswith("[["):
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif keys := _keys(line, "="):
            lines.setdefault((*table, *keys), number)
    return lines


def _counted(keys: Place, counts: dict[Place, int]) -> Place:
    """Inserts the current index of each array of tables on the way to the last key."""
    place: Place = ()
    for index, key in enumerate(keys):
        place = (*place, key)
        if place in counts and index < len(keys) - 1:
            place = (*place, counts[place])
    return place


_KEY = re.compile(r"""[ \t]*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*(.?)""")


def _keys(line: str, end: str) -> Place:
    """Returns the parts of the dotted key between the start of a line and `end`, if it has both."""
    keys: list[str] = []
    at = 0
    while match := _KEY.match(line, at):
        key, mark = match[1], match[2]
        try:
            keys.append(tomllib.loads(f"k = {key}")["k"] if key[0] in "\"'" else key)
        except tomllib.TOMLDecodeError:  # a line inside a multi-line string
            return ()
        if mark == end:
            rest = line[match.end() :].lstrip("] \t")
            return tuple(keys) if end == "=" or rest[:1] in ("", "#") else ()
        if mark != ".":
            break
        at = match.end()
    return ()
