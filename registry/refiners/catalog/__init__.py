"""What is published: one list to search, and the releases behind it, read offline.

    search.json                       the newest release of everything, for names and search
    entries/<hex digit>.jsonl         every release, a line each, only ever added to
    advisories.toml                   what was found out afterwards, only ever added to

The digit is the first of the sha256 of the distribution's name, so that a catalog of any length is
a few files; an entry may also have a file of its own, `entries/<distribution>/<kind>-<name>.jsonl`.

It tells "not installed" from "does not exist". The copy in the wheel is read, together with the one
that `refiners catalog refresh` fetched, which may add to it and never speaks for a name in it; or
the folder that REFINERS_CATALOG names, alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from refiners.catalog.entry import Listed, Release, read_releases, releases_of
from refiners.catalog.owner import unclaimed
from refiners.errors import CatalogError
from refiners.host.stamp import Stamp
from refiners.manifest.version import is_development, is_newer

__all__ = ["SHIPPED", "VARIABLE", "Current", "Listed", "Release", "current", "fetched_home",
           "folders", "listed", "read_releases", "releases", "search", "shipped",
           "steadily"]  # fmt: skip

VARIABLE: Final = "REFINERS_CATALOG"
SHIPPED: Final = Path(__file__).parent
_TRIES: Final = 100
"""How often a copy that a refresh replaces while it is read is looked for anew."""

T = TypeVar("T")


class Current(msgspec.Struct, frozen=True):
    """Which copy was fetched last, and from where."""

    folder: str
    source: str
    commit: str


def fetched_home() -> Path:
    """Returns the folder of the fetched copies."""
    from refiners.hub.local_settings import data_folder

    return data_folder() / "catalog"


def current() -> Current | None:
    """Returns which copy was fetched last; None if none was, or it is not there any more."""
    home = fetched_home()
    try:
        found = msgspec.json.decode((home / "current.json").read_bytes(), type=Current)
        is_inside = Path(found.folder).name == found.folder not in ("", "..")
        return found if is_inside and (home / found.folder / "search.json").is_file() else None
    except (OSError, msgspec.DecodeError):
        return None


def folders() -> tuple[Path, ...]:
    """Returns the folders that are read, that of the wheel before the fetched one."""
    if named := os.environ.get(VARIABLE):
        return (Path(named),)
    fetched = current()
    return (SHIPPED,) if fetched is None else (SHIPPED, fetched_home() / fetched.folder)


def steadily(read: Callable[[tuple[Path, ...]], T]) -> T:
    """Returns what is read from the folders, all of it from the same copies.

    A refresh removes the copy that it supersedes. What was read of one that went away meanwhile,
    or the failure to, counts for nothing: it is read again from the copy that took its place.
    """
    for _ in range(_TRIES):
        places = folders()
        try:
            found = read(places)
        except Exception:
            if folders() == places:
                raise
        else:
            if folders() == places:
                return found
    return read(folders())


def listed() -> tuple[Listed, ...]:
    """Returns the newest release of everything, sorted by name.

    Raises:
        CatalogError: A folder has no readable list.
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
    """Returns what the catalog in the wheel lists, or the folder that REFINERS_CATALOG names.

    Raises:
        CatalogError: It has no readable list.
    """
    return _list_in(folders()[0])


def _replaces(version: str, known: str) -> bool:
    """Whether what was fetched goes before what was shipped in the same version."""
    return version == known and is_development(version)


def _list_in(folder: Path) -> tuple[Listed, ...]:
    """Reads a list, unless this process has read it and it has not been touched since."""
    path = folder / "search.json"
    stamp = Stamp.of(path)
    if stamp is not None and (known := _lists.get(path)) is not None and known[0] == stamp:
        return known[1]
    try:
        found = msgspec.json.decode(path.read_bytes(), type=tuple[Listed, ...])
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        way_out = f"unset {VARIABLE}" if os.environ.get(VARIABLE) else "refiners catalog forget"
        raise CatalogError(
            f"{path} cannot be read: {error}.",
            hint=f"To use the copy that was installed with refiners: {way_out}.",
        ) from error
    if stamp is not None:
        _lists[path] = (stamp, found)
    return found


_lists: Final[dict[Path, tuple[Stamp, tuple[Listed, ...]]]] = {}


def releases(entry: Listed) -> tuple[Release, ...]:
    """Returns every release of an adapter or a model, as they were published.

    Raises:
        CatalogError: A file of it is damaged.
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
    """Returns what has every term somewhere in its names, summary or bases; names count first."""
    wanted = [term.lower() for term in terms]

    def text(entry: Listed) -> str:
        words = (entry.id, entry.kind, entry.does, entry.summary, *entry.aliases, *entry.bases)
        return " ".join(words).lower()

    found = [entry for entry in among if all(term in text(entry) for term in wanted)]
    return tuple(sorted(found, key=lambda e: (not all(t in e.name for t in wanted), e.name, e.id)))
