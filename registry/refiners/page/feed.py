"""Feeds of the catalog in JSON Feed 1.1, in pages that name the next one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from refiners.page.card import Card

_ITEMS: Final = 100
"""The items of one page of a feed."""
_NEWEST: Final = 50
"""The items of the feed of the newest releases."""


def newest(cards: Sequence[Card]) -> tuple[Card, ...]:
    """Returns the plugins whose reports are newest; those without a date are left out."""
    dated = [card for card in cards if card.conformance and card.conformance.day]
    return tuple(sorted(dated, key=_date, reverse=True))[:_NEWEST]


def feed_pages(
    path: str, title: str, cards: Sequence[Card], base_url: str
) -> Iterator[tuple[str, bytes]]:
    """Yields the pages of a feed with their paths.

    Args:
        path: The path of the first page, such as `feeds/all.json`.
        title: The title of the feed.
        cards: The plugins.
        base_url: The address of the site; without one, addresses are relative to the site.
    """
    stem = path.removesuffix(".json")
    starts = range(0, max(len(cards), 1), _ITEMS)
    paths = [path, *(f"{stem}-{number}.json" for number in range(2, len(starts) + 1))]
    for number, start in enumerate(starts):
        feed: dict[str, Any] = {
            "version": "https://jsonfeed.org/version/1.1",
            "title": title,
            "home_page_url": f"{base_url}index.html",
            "feed_url": f"{base_url}{paths[number]}",
        }
        if number + 1 < len(paths):
            feed["next_url"] = f"{base_url}{paths[number + 1]}"
        feed["items"] = [_item(card, base_url) for card in cards[start : start + _ITEMS]]
        yield paths[number], msgspec.json.format(msgspec.json.encode(feed), indent=1) + b"\n"


def _date(card: Card) -> str:
    return card.conformance.day if card.conformance else ""


def _item(card: Card, base_url: str) -> dict[str, Any]:
    entry = card.plugin.entry
    report = card.conformance
    item: dict[str, Any] = {
        "id": f"{entry.kind}/{card.dist}:{card.name}@{card.version}",
        "url": f"{base_url}{card.path}",
        "title": f"{card.name} {card.version}",
        "content_text": card.summary,
        "tags": [card.category, *card.bases],
        "_refiners": {
            "name": card.name,
            "kind": entry.kind,
            "category": card.category,
            "distribution": card.dist,
            "version": card.version,
            "bases": [*card.bases],
            "licenses": [*card.licenses],
            "terms": card.terms,
            "status": card.status,
            "advisories": [notice.id for notice in card.notices[:20]],
            "conformance": report and {
                "passed": report.count("pass"),
                "failed": report.count("fail"),
                "not_run": report.count("not-run"),
                "date": report.day,
            },
        },
    }  # fmt: skip
    if report and report.day:
        item["date_published"] = f"{report.day}T00:00:00Z"
    return item
