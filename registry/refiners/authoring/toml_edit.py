"""Changes values in the text of a TOML file and leaves every other byte as its author wrote it.

tomlkit keeps a layout but does not say where a value is. So the values to change are replaced by
marks in a copy; the text around the marks shows the place of each value in the original.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from refiners.manifest.toml import TomlError, parse_toml

Place = tuple[str, ...]
"""The keys that lead to a value."""
_MARK: Final = "refiners-mark-{}-refiners"
_PART: Final = re.compile(r"""\#[^\r\n]*|"(?:[^"\\]|\\.)*"|'[^'\r\n]*'|[^\s,\[\]\#"']+""")
"""A comment or an item of an array."""
_ESCAPED: Final = re.compile(r"['\x00-\x08\x0a-\x1f\x7f]")
"""The characters that a literal string cannot have."""
_LINE_KEY: Final = re.compile(r"""(?P<before>.*?)(?:[\w-]+|"[^"]*"|'[^']*')\s*=\s*""", re.DOTALL)


class Edit(NamedTuple):
    """A value to write: at its key, or at a new key behind a key of the same table."""

    place: Place
    value: Any
    after: str = ""
    """The key behind which a new key is written; empty for a key that exists."""


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Returns a text with changed values and new keys.

    Args:
        text: The content of a TOML file.
        edits: The changes; new keys of one table are written in this order.

    Raises:
        TomlError: The layout of the file is too unusual for the changes to be certain.
    """
    if not edits:
        return text
    anchors = [(*edit.place[:-1], edit.after) if edit.after else edit.place for edit in edits]
    spans = _spans(text, dict.fromkeys(anchors))
    newline = "\r\n" if "\r\n" in text else "\n"
    pieces: list[tuple[int, int, int, str]] = []
    for number, (edit, anchor) in enumerate(zip(edits, anchors, strict=True)):
        start, end, is_inline = spans[anchor]
        if not edit.after:
            pieces.append((start, end, number, _literal(edit.value, text[start:end])))
            continue
        key = edit.place[-1]
        if is_inline:
            opened = max(text.rfind("{", 0, start), text.rfind(",", 0, start)) + 1
            before = _prefix(text[opened:start]).lstrip()
            pieces.append((end, end, number, f", {before}{key} = {_literal(edit.value)}"))
        else:
            line = text.rfind("\n", 0, start) + 1
            close = text.find("\n", end)
            close = len(text) if close < 0 else close - text[:close].endswith("\r")
            new = f"{newline}{_prefix(text[line:start])}{key} = {_literal(edit.value)}"
            pieces.append((close, close, number, new))
    result = text
    for start, end, _, new in sorted(pieces, reverse=True):
        result = result[:start] + new + result[end:]
    if parse_toml(result) != _expected(parse_toml(text), edits):
        raise _unusual()
    return result


def _prefix(line: str) -> str:
    """Returns the indentation and the dotted keys before the last key of a line."""
    match = _LINE_KEY.fullmatch(line)
    if match is None:
        raise _unusual()
    return match["before"]


def _spans(text: str, places: Mapping[Place, None]) -> dict[Place, tuple[int, int, bool]]:
    """Returns the start and end of some values, and whether each is in an inline table."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import InlineTable

    try:
        document: Any = tomlkit.parse(text)
        if tomlkit.dumps(document) != text:
            raise _unusual()
        inline: dict[Place, bool] = {}
        marks = {place: _MARK.format(number) for number, place in enumerate(places)}
        for place, mark in marks.items():
            table = document
            inline[place] = False
            for key in place[:-1]:
                table = table[key]
                inline[place] |= isinstance(table, InlineTable)
            table[place[-1]] = mark
        marked = tomlkit.dumps(document)
    except (TOMLKitError, KeyError, TypeError) as error:
        raise _unusual() from error
    values = parse_toml(text)
    by_position = sorted(marks, key=lambda place: marked.find(marks[place]))
    spans: dict[Place, tuple[int, int, bool]] = {}
    position = rest = 0
    for number, place in enumerate(by_position):
        at = marked.find(marks[place])
        gap = marked[rest : at - 1]  # a mark is quoted
        rest = at + len(marks[place]) + 1
        if at < 1 or not text.startswith(gap, position):
            raise _unusual()
        start = position + len(gap)
        following = by_position[number + 1] if number + 1 < len(by_position) else None
        until = marked.find(marks[following]) - 1 if following else len(marked)
        end = _end(text, start, marked[rest:until], _at(values, place), is_last=following is None)
        spans[place] = start, end, inline[place]
        position = end
    return spans


def _end(text: str, start: int, following: str, value: Any, *, is_last: bool) -> int:
    """Returns the end of a value, which the text that follows it must begin at."""
    end = len(text) - len(following) if is_last else text.find(following, start + 1)
    while start < end:
        try:
            if parse_toml(f"x = {text[start:end]}") == {"x": value}:
                return end
        except TomlError:
            pass
        end = -1 if is_last else text.find(following, end + 1)
    raise _unusual()


def _at(values: Mapping[str, Any], place: Place) -> Any:
    value: Any = values
    for key in place:
        value = value[key]
    return value


def _expected(values: dict[str, Any], edits: Sequence[Edit]) -> dict[str, Any]:
    for edit in edits:
        _at(values, edit.place[:-1])[edit.place[-1]] = edit.value
    return values


def _literal(value: Any, before: str = "") -> str:
    """Returns a value in TOML, in the quotes and with the comments of the value that it replaces.

    Raises:
        TomlError: A comment would be lost.
    """
    if before.startswith("["):
        return _array(value, before)
    is_literal = before.startswith("'") and not before.startswith("'''")
    if isinstance(value, str) and is_literal and not _ESCAPED.search(value):
        return f"'{value}'"
    import tomlkit

    return tomlkit.item(value).as_string()


def _array(value: Any, before: str) -> str:
    """Returns an array in the layout of the one that it replaces, or with its comments in front."""
    parts = list(_PART.finditer(before))
    items = [part for part in parts if not part[0].startswith("#")]
    if isinstance(value, list) and len(items) == len(cast("list[Any]", value)):
        result = before
        for part, item in reversed([*zip(items, cast("list[Any]", value), strict=True)]):
            result = result[: part.start()] + _literal(item, part[0]) + result[part.end() :]
        return result
    new = _literal(value)
    comments = [part[0] for part in parts if part[0].startswith("#")]
    if not comments:
        return new
    if not new.startswith("["):
        raise _unusual()
    newline = "\r\n" if "\r\n" in before else "\n"
    return f"[{newline}" + "".join(f"  {comment}{newline}" for comment in comments) + new[1:]


def _unusual() -> TomlError:
    return TomlError("has a layout that cannot be changed safely; write the values by hand")
