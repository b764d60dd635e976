"""Notices when a package changes its attested publisher, and names the old one and the new one.

The catalog records who published each release. The publisher that this machine has accepted is in
the lock that is in use; without a lock, in a file beside the receipts. What was never accepted is
compared with the releases before it. Listing and examining only show a change; loading and locking
accept it, after showing it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from refiners.catalog import steadily
from refiners.catalog.entry import publishers_in
from refiners.errors import CatalogError, PublisherNotice, RefinersError
from refiners.host.disk import PUBLIC, write_whole
from refiners.host.exclusive import exclusive
from refiners.installed.inventory import Installed
from refiners.manifest.version import is_newer, is_same

_FILE: Final = "publishers.json"


class PublisherChange(NamedTuple):
    """Another publisher of an installed package than the accepted one."""

    dist: str
    version: str
    old: str
    new: str
    """The identity of the publisher of the installed version; empty if none is attested."""
    last: str
    """The last version by the old publisher; empty if the catalog has none."""

    def __str__(self) -> str:
        of = f"{self.dist} {self.last}" if self.last else f"{self.dist}, as it was locked,"
        by = f"is published by {self.new}" if self.new else "has no attested publisher"
        return (
            f"{self.dist} has another publisher: {of} is by {self.old}, and the installed "
            f"{self.version} {by}. If you do not expect this, {self.way_back}."
        )

    @property
    def way_back(self) -> str:
        """The command that returns to the old publisher."""
        return (
            f"pip install '{self.dist}=={self.last}'" if self.last else f"pip uninstall {self.dist}"
        )


def recorded_publishers(dists: Collection[str]) -> dict[str, dict[str, str]]:
    """Returns the identity of the publisher of each release of some distributions.

    Returns:
        The identities by distribution and version, empty where none is attested; distributions of
        which no release has a publisher are left out. A damaged catalog records nothing.
    """

    def read(places: tuple[Path, ...]) -> dict[str, dict[str, str]]:
        known: dict[str, dict[str, str]] = {}
        for folder in places:
            for dist, versions in publishers_in(folder, dists).items():
                known[dist] = versions | known.get(dist, {})  # the catalog in the wheel prevails
        return {dist: versions for dist, versions in known.items() if any(versions.values())}

    try:
        return steadily(read)
    except CatalogError:
        return {}


def identity_of(dist: str, version: str) -> str | None:
    """Returns the identity of the publisher of a release; None if none is recorded."""
    versions = recorded_publishers((dist,)).get(dist, {})
    return next((who for known, who in versions.items() if is_same(known, version)), None) or None


def publisher_changes(
    plugins: Iterable[Installed[Any]], locked: Mapping[str, str] | None = None
) -> Iterator[PublisherChange]:
    """Yields the changes of publishers of installed packages, one for each distribution.

    Args:
        plugins: The plugins.
        locked: The identities in the lock that is in use by distribution; None without a lock.
    """
    versions = {plugin.dist: plugin.version for plugin in plugins}
    recorded = recorded_publishers(versions.keys())
    if not recorded:
        return
    accepted = _accepted() if locked is None else locked
    for dist, releases in sorted(recorded.items()):
        installed = versions[dist]
        new = next((who for version, who in releases.items() if is_same(version, installed)), None)
        if new is None:  # newer than the catalog
            continue
        earlier = {v: who for v, who in releases.items() if is_newer(installed, v) and who}
        old = accepted.get(dist)
        if old is None and locked is None:
            older = _sorted(v for v, who in earlier.items() if who != new)
            old = earlier[older[-1]] if older else None
        if old is not None and old != new:
            by_old = _sorted(version for version, who in earlier.items() if who == old)
            yield PublisherChange(dist, installed, old, new, by_old[-1] if by_old else "")


def notice(changes: Iterable[PublisherChange], *, stacklevel: int) -> None:
    """Warns of changes of publishers.

    Args:
        changes: The changes.
        stacklevel: The number of frames up to the caller whose line the warnings name.
    """
    for change in changes:
        warnings.warn(str(change), PublisherNotice, stacklevel=stacklevel + 1)


def accept(changes: Iterable[PublisherChange]) -> None:
    """Records the new publishers on this machine; what cannot be written is shown again later."""
    from refiners.hub.local_settings import data_folder

    new = {change.dist: change.new for change in changes}
    if not new:
        return
    with suppress(OSError, RefinersError):
        path = data_folder() / _FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path):
            write_whole(path, msgspec.json.encode(_accepted() | new), PUBLIC)


def _accepted() -> dict[str, str]:
    from refiners.hub.local_settings import data_folder

    try:
        return msgspec.json.decode((data_folder() / _FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError, RefinersError):
        return {}


def _sorted(versions: Iterable[str]) -> list[str]:
    """Returns versions in order, oldest first; those that cannot be compared are left out."""
    from refiners.manifest.version import version_of

    known = {version: parsed for version in versions if (parsed := version_of(version))}
    return sorted(known, key=lambda version: known[version])
