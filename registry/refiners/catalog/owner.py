"""Keeps a name with its first owner, however many distributions claim it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from refiners.catalog.entry import Listed


def unclaimed(entries: Iterable[Listed], owners: Mapping[str, str]) -> Iterator[Listed]:
    """Yields the entries whose name is free or theirs, without aliases that belong to others.

    Args:
        entries: The entries of a less trusted source.
        owners: The distribution that owns each name, aliases included.
    """
    for entry in entries:
        names = (entry.name, *entry.aliases)
        mine = {n for n in names if owners.get(n, entry.distribution) == entry.distribution}
        if entry.name in mine:
            kept = tuple(alias for alias in entry.aliases if alias in mine)
            yield entry if kept == entry.aliases else replace(entry, aliases=kept)
