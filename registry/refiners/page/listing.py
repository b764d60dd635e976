"""Lists of plugins, cut into pages that link to one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from refiners.page.card import Card


class Listing(NamedTuple):
    """A list of plugins."""

    kind: str
    """The kind of list: `all`, `kind`, `base` or `matrix`."""
    title: str
    name: str
    """The kind or the base that its plugins share; empty for all."""
    cards: Sequence[Card]
    stem: str
    """The name of its files without their number."""

    @property
    def path(self) -> str:
        """The path of its first page."""
        return self.path_of(1)

    def path_of(self, number: int) -> str:
        """Returns the path of a page, counted from 1."""
        folder = "matrix" if self.kind == "matrix" else "list"
        return f"{folder}/{self.stem}{'' if number == 1 else f'-{number}'}.html"


class Pager(NamedTuple):
    """Where a page is in its list."""

    number: int
    pages: int
    links: tuple[tuple[int, str], ...]
    """The numbers and file names of pages to jump to; 0 marks a gap."""
    before: str
    after: str


def list_pages(
    listing: Listing, length: int, render: Callable[[Listing, Sequence[Card], Pager], bytes]
) -> Iterator[tuple[str, bytes]]:
    """Yields the paths and contents of the pages of a list.

    Args:
        listing: The list.
        length: The plugins of a page.
        render: Makes a page of a part of the list.
    """
    count = max(1, -(-len(listing.cards) // length))
    names = [listing.path_of(number).rpartition("/")[2] for number in range(1, count + 1)]
    for number in range(1, count + 1):
        nearby = {1, 2, number - 1, number, number + 1, count - 1, count}
        known = [n for n in sorted(nearby) if 1 <= n <= count]
        links: list[tuple[int, str]] = []
        for n in known:
            if links and n != links[-1][0] + 1:
                links.append((0, ""))
            links.append((n, names[n - 1]))
        pager = Pager(
            number,
            count,
            tuple(links),
            names[number - 2] if number > 1 else "",
            names[number] if number < count else "",
        )
        cards = listing.cards[(number - 1) * length : number * length]
        yield listing.path_of(number), render(listing, cards, pager)
