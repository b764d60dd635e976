"""The catalog of published plugins: a list to search, and its releases, read offline.

    search.json                       the newest release of each plugin
    entries/<hex digit>.jsonl         every release, one per line; append-only
    advisories.toml                   advisories on published releases; append-only

The digit is the first of the sha256 of the distribution's name, so that a catalog of any size has
few files. An entry may also have a separate file, `entries/<distribution>/<kind>-<name>.jsonl`.

The catalog distinguishes a name that is not installed from one that does not exist. Two copies are
read: the one in the wheel, and the one that `refiners catalog refresh` fetched, which may add names
but never redefines a name of the first. The folder that REFINERS_CATALOG names replaces both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from refiners.catalog.entry import LIST, Listed, Release, read_releases, releases_of
from refiners.catalog.owner import unclaimed
from refiners.errors import CatalogError
from refiners.host.stamp import Stamp
from refiners.manifest.version import is_development, is_newer

__all__ = ["SHIPPED", "VARIABLE", "Current", "Listed", "Release", "current", "fetched_home",
           "folders", "listed", "listed_in", "read_releases", "releases", "search", "shipped",
           "steadily"]  # fmt: skip

VARIABLE: Final = "REFINERS_CATALOG"
SHIPPED: Final = Path(__file__).parent
_TRIES: Final = 100
"""The number of attempts to read a copy while refreshes replace it."""

T = TypeVar("T")


class Current(msgspec.Struct, frozen=True):
    """The copy that was fetched last, and its source."""

    folder: str
    source: str
    commit: str


def fetched_home() -> Path:
    """Returns the folder of the fetched copies."""
    from refiners.hub.local_settings import data_folder

    return data_folder() / "catalog"


def current() -> Current | None:
    """Returns the copy that was fetched last; None if there is none, or it was removed."""
    home = fetched_home()
    try:
        pointer = msgspec.json.decode((home / "current.json").read_bytes(), type=Current)
        is_inside = Path(pointer.folder).name == pointer.folder not in ("", "..")
        return pointer if is_inside and (home / pointer.folder / LIST).is_file() else None
    except (OSError, msgspec.DecodeError):
        return None


def folders() -> tuple[Path, ...]:
    """Returns the folders to read: that of the wheel, then the fetched one."""
    if named := os.environ.get(VARIABLE):
        return (Path(named),)
    fetched = current()
    return (SHIPPED,) if fetched is None else (SHIPPED, fetched_home() / fetched.folder)


def steadily(read: Callable[[tuple[Path, ...]], T]) -> T:
    """Returns the result of a reader, computed from one consistent set of folders.

    A refresh removes the copy that it supersedes. If the folders change during a read, its result
    or exception is discarded, and the reader runs again on the new copy.
    """
    for _ in range(_TRIES):
        places = folders()
        try:
            result = read(places)
        except Exception:
            if folders() == places:
                raise
        else:
            if folders() == places:
                return result
    return read(folders())


def listed() -> tuple[Listed, ...]:
    """Returns the newest release of each plugin, sorted by name.

    Raises:
        CatalogError: A folder does not have a readable list.
    """
    first, *others = steadily(lambda places: [_list_in(folder) for folder in places])
    if not others:
        return first
    owners = {alias: entry.distribution for entry in first for alias in entry.aliases}
    owners |= {entry.name: entry.distribution for entry in first}
    newest = {(entry.kind, entry.id): entry for entry in first}
    for entry in (entry for more in others for entry in unclaimed(more, owners)):
        known = newest.setdefault((entry.kind, entry.id), entry)
        if is_newer(entry.version, known.version) or _replaces(entry.version, known.version):
            newest[entry.kind, entry.id] = entry
    return tuple(sorted(newest.values(), key=lambda entry: (entry.name, entry.id)))


def shipped() -> tuple[Listed, ...]:
    """Returns the list of the catalog in the wheel, or in the folder that REFINERS_CATALOG names.

    Raises:
        CatalogError: The folder does not have a readable list.
    """
    return _list_in(folders()[0])


def _replaces(version: str, known: str) -> bool:
    """Whether a fetched release replaces the shipped one of the same version."""
    return version == known and is_development(version)


def listed_in(folder: Path) -> tuple[Listed, ...]:
    """Returns the newest release of each plugin in one catalog; none if it does not exist.

    Raises:
        CatalogError: Its list is damaged.
    """
    return _list_in(folder) if (folder / LIST).exists() else ()


def _list_in(folder: Path) -> tuple[Listed, ...]:
    """Reads a list, or returns the cached one if the file has not changed since the last read."""
    path = folder / LIST
    stamp = Stamp.of(path)
    if stamp is not None and (known := _lists.get(path)) is not None and known[0] == stamp:
        return known[1]
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=tuple[Listed, ...])
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        way_out = f"unset {VARIABLE}" if os.environ.get(VARIABLE) else "refiners catalog forget"
        raise CatalogError(
            f"{path} cannot be read: {error}.",
            hint=f"To use the copy that is installed with refiners: {way_out}.",
        ) from error
    if stamp is not None:
        _lists[path] = (stamp, entries)
    return entries


_lists: Final[dict[Path, tuple[Stamp, tuple[Listed, ...]]]] = {}


def releases(entry: Listed) -> tuple[Release, ...]:
    """Returns every release of a plugin, in the order of publication.

    Raises:
        CatalogError: A file with its releases is damaged.
    """

    def read(places: tuple[Path, ...]) -> dict[str, Release]:
        known: dict[str, Release] = {}
        for folder in places:
            for release in releases_of(folder, entry):
                if release.version not in known or is_development(release.version):
                    known[release.version] = release
        return known

    return tuple(steadily(read).values())


def search(terms: tuple[str, ...], among: tuple[Listed, ...]) -> tuple[Listed, ...]:
    """Returns the entries with every term in names, summary or bases; matches in the name first."""
    wanted = [term.lower() for term in terms]

    def text(entry: Listed) -> str:
        words = (entry.id, entry.kind, entry.does, entry.summary, *entry.aliases, *entry.bases)
        return " ".join(words).lower()

    matches = [entry for entry in among if all(term in text(entry) for term in wanted)]
    return tuple(
        sorted(matches, key=lambda e: (not all(t in e.name for t in wanted), e.name, e.id))
    )
