"""The changes between two releases, in the keys of their manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from refiners.page.text import clipped

_SHOWN: Final = 100
"""The most characters of a value."""


class Change(NamedTuple):
    """One key that a release added, removed or changed."""

    sign: str
    """`added`, `removed` or `changed`."""
    key: str
    before: str
    after: str


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Yields the differences between the tables of two releases, in the order of the keys."""
    old, new = _leaves(before, after), _leaves(after, before)
    for key in dict.fromkeys((*new, *old)):
        if key not in old:
            yield Change("added", clipped(key, _SHOWN), "", new[key])
        elif key not in new:
            yield Change("removed", clipped(key, _SHOWN), old[key], "")
        elif old[key] != new[key]:
            yield Change("changed", clipped(key, _SHOWN), old[key], new[key])


def _leaves(table: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values of a table by dotted keys, without the keys that are equal in another."""
    news = {key: value for key, value in table.items() if key not in other or other[key] != value}
    return dict(_flat("", news, 0))


def _flat(path: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Yields the leaves of a table by their dotted keys; lists of tables are keyed by a label."""
    if isinstance(value, dict) and depth < 6:
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item, depth + 1)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and depth < 6:
        labels: dict[str, int] = {}
        for item in value:
            label = _label(item)
            labels[label] = count = labels.get(label, 0) + 1
            name = label if count == 1 else f"{label} {count}"
            yield from _flat(f"{path} {name}", item, depth + 1)
    else:
        text = value if isinstance(value, str) else "" if value in ([], {}) else str(value)
        yield path, clipped(text, _SHOWN) or "empty"


def _label(item: Any) -> str:
    table = item if isinstance(item, dict) else {}
    words = (table.get("name") or table.get("base") or table.get("slot"), table.get("dtype"))
    return " ".join(word for word in words if isinstance(word, str)) or "any"
