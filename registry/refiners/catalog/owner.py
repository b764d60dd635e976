"""Who may speak for a name: whoever had it first, however many claim it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from refiners.catalog.entry import Listed


def unclaimed(entries: Iterable[Listed], owners: Mapping[str, str]) -> Iterator[Listed]:
    """Yields entries without those, and without the aliases, that claim a name of somebody else.

    Args:
        entries: Of a source that is trusted less.
        owners: The distribution that each name, aliases included, belongs to.
    """
    for entry in entries:
        names = (entry.name, *entry.aliases)
        mine = {n for n in names if owners.get(n, entry.distribution) == entry.distribution}
        if entry.name in mine:
            kept = tuple(alias for alias in entry.aliases if alias in mine)
            yield entry if kept == entry.aliases else replace(entry, aliases=kept)
