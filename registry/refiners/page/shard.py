"""The index of the search: scripts of data, each small enough to be loaded on demand.

A page that is opened as a file may load scripts but not fetch data, so each shard is a script that
calls one function with rows of texts and numbers. The rows have no markup; the search writes them
as text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from refiners.page.card import Card
from refiners.page.notice import STATUSES
from refiners.page.text import clipped

SHARD_BYTES: Final = 90_000
"""The most bytes of a shard."""
FIRST_BYTES: Final = 20_000
"""The most bytes of the first shard, which the page reads at once."""
_MOST: Final = 150
"""The most values of a filter."""
OTHER: Final = "other"
"""The value of a filter for what is not among the most frequent values."""


class Facets:
    """The values of the filters, the most frequent first.

    Args:
        cards: The plugins of the site.
    """

    def __init__(self, cards: Iterable[Card]) -> None:
        cards = [*cards]
        self.bases = _common(base for card in cards for base in card.bases)
        self.kinds = _common(card.category for card in cards)
        self.licenses = _common(text for card in cards for text in card.licenses)
        self.statuses = STATUSES


def shards(cards: Iterable[Card], facets: Facets) -> Iterator[str]:
    """Yields the scripts of the index, in the order of the cards."""
    rows: list[str] = []
    first = size = 0
    for card in cards:
        text = _literal(_row(card, facets))
        if rows and size + len(text) > (SHARD_BYTES if first else min(FIRST_BYTES, SHARD_BYTES)):
            yield _script(first, rows)
            first, rows, size = first + len(rows), [], 0
        rows.append(text)
        size += len(text) + 2
    if rows:
        yield _script(first, rows)


def _literal(row: list[Any]) -> str:
    """Returns a row as a literal of a script, in ASCII."""
    return json.dumps(row, ensure_ascii=True, separators=(",", ":"))


def _script(first: int, rows: list[str]) -> str:
    body = ",\n".join(rows)
    return f"refinersCatalog.add({first},[\n{body}\n]);\n"


def _row(card: Card, facets: Facets) -> list[Any]:
    """Returns the facts of a card; the reader of this row is `assets/search.js`."""
    return [
        card.name,
        clipped(card.summary, 140),
        _index(facets.kinds, card.category),
        [_index(facets.bases, base) for base in card.bases],
        [_index(facets.licenses, text) for text in card.licenses],
        facets.statuses.index(card.status),
        card.path.removeprefix("plugin/").removesuffix(".html"),
        clipped(" ".join(card.plugin.entry.aliases[:8]), 120),
        1 if card.terms else 0,
    ]


def _index(values: tuple[str, ...], value: str) -> int:
    return values.index(value) if value in values else values.index(OTHER)


def _common(values: Iterable[str]) -> tuple[str, ...]:
    counts = Counter(values).most_common()
    names = [name for name, _ in counts[:_MOST]]
    if len(counts) > _MOST and OTHER not in names:
        names.append(OTHER)
    return tuple(names)
