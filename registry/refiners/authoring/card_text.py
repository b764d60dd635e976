"""Changes fields in the header of a model card and leaves every other line as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from refiners.hub.card import header_fields, header_lines

_CARD: Final = re.compile(
    r"(?P<open>\ufeff?\s*---[ \t]*\r?\n)(?P<header>(?:[^\n]*\n)*?)(?P<close>---[ \t]*(?:\r?\n|$))"
)
_ITEM: Final = re.compile(r"(?P<indent> *)-\s")
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#")
_FIELD: Final = re.compile(
    r"""^(?P<quote>["']?)(?P<name>[^\s"'#:,\[\]{}-][^"':#]*)(?P=quote)\s*:(\s|$)"""
)


def fields_of(text: str) -> dict[str, Any]:
    """Returns the fields in the header of a card; none without a header.

    Raises:
        ValueError: The header is not a table in YAML.
    """
    match = _CARD.match(text)
    return header_fields(match["header"]) if match else {}


def with_fields(text: str, fields: Mapping[str, Any]) -> str:
    """Returns a card with some fields changed or added.

    The text below the header, other fields, comments and the order of fields stay. Comments inside
    a field that is replaced go above it; a mark of the byte order stays in front.

    Args:
        text: The card; a header is added to one that lacks it.
        fields: The values to write; fields that have them already stay as they are written.

    Raises:
        ValueError: The header is not a table in YAML, or its layout is too unusual for the change
            to be certain.
    """
    match = _CARD.match(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    if match is None:
        header = "".join(header_lines(name, value) for name, value in fields.items())
        mark, body = (text[:1], text[1:]) if text.startswith("\ufeff") else ("", text)
        gap = newline if body and not body.startswith(("\n", "\r")) else ""
        return mark + f"---\n{header}---\n".replace("\n", newline) + gap + body
    before = header_fields(match["header"])
    changed = {name: value for name, value in fields.items() if before.get(name) != value}
    if not changed:
        return text
    lines = match["header"].splitlines(keepends=True)
    for name, value in changed.items():
        start, end = _block(lines, name)
        lines[start:end] = _replaced(lines[start:end], name, before.get(name), value, newline)
    header = "".join(lines)
    try:
        is_right = header_fields(header) == before | changed
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("the layout of its header cannot be changed safely")
    return text[: match.start("header")] + header + text[match.end("header") :]


def _replaced(block: list[str], name: str, old: Any, new: Any, newline: str) -> list[str]:
    """Returns the new lines of a field, with the comments of the old ones."""
    first = next((match for line in block[1:] if (match := _ITEM.match(line))), None)
    if first and isinstance(old, list) and isinstance(new, list):
        known, items = cast("list[Any]", old), cast("list[Any]", new)
        if items[: len(known)] == known:
            added = header_lines(name, items[len(known) :]).splitlines()[1:]
            longer = [*block, *(f"{first['indent']}{line}{newline}" for line in added)]
            if _value("".join(longer)) == {name: items}:
                return longer
    lines = header_lines(name, new).replace("\n", newline).splitlines(keepends=True)
    return [*(f"{comment}{newline}" for comment in _comments(block)), *lines]


def _comments(block: list[str]) -> Iterator[str]:
    """Yields the comments in the lines of a field: what starts with # and does not change it."""
    value = _value("".join(block))
    for number, line in enumerate(block):
        for match in _COMMENT.finditer(line):
            rest = [*block[:number], line[: match.start()] + "\n", *block[number + 1 :]]
            if _value("".join(rest)) == value:
                yield line[match.start() :].strip()
                break


def _value(header: str) -> dict[str, Any] | None:
    try:
        return header_fields(header)
    except ValueError:
        return None


def _block(lines: list[str], name: str) -> tuple[int, int]:
    """Returns the lines of a field; an empty range at the end of the header for a new one."""
    starts = [index for index, line in enumerate(lines) if _FIELD.match(line)]
    for position, start in enumerate(starts):
        match = _FIELD.match(lines[start])
        if match is None or match["name"].strip() != name:
            continue
        end = starts[position + 1] if position + 1 < len(starts) else len(lines)
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1  # comments above the next field belong to it
        return start, end
    return len(lines), len(lines)
