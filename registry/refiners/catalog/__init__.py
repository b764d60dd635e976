"""What is published: one list to search, and one file per adapter or model, read offline.

    search.json                       the newest release of everything, for names and search
    entries/<distribution>/<kind>-<name>.jsonl     every release, a line each, only ever added to
    advisories.toml                   what was found out afterwards, only ever added to

It tells "not installed" from "does not exist". The copy in the wheel is read, together with the one
that `refiners catalog refresh` fetched, the newer release of each going first; or the folder that
REFINERS_CATALOG names, alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from refiners.errors import CatalogError
from refiners.stamp import Stamp

VARIABLE: Final = "REFINERS_CATALOG"
SHIPPED: Final = Path(__file__).parent


class Listed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An adapter or a model that somebody published."""

    name: str
    kind: Literal["adapter", "model"]
    distribution: str
    summary: str
    version: str = ""
    """The newest release."""
    bases: tuple[str, ...] = ()
    """The bases that an adapter has variants for; of a model its family."""
    aliases: tuple[str, ...] = ()
    """Other names that lead to it."""
    does: str = ""
    """The kind of adapter, in a word."""

    @property
    def id(self) -> str:
        """Its canonical name, `distribution:name`."""
        return f"{self.distribution}:{self.name}"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an adapter or a model, with its table of the manifest."""

    name: str
    kind: Literal["adapter", "model"]
    distribution: str
    version: str
    spec: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.distribution}:{self.name} {self.version}"


class Current(msgspec.Struct, frozen=True):
    """Which copy was fetched last, and from where."""

    folder: str
    source: str
    commit: str


def fetched_home() -> Path:
    """Returns where copies that were fetched are kept."""
    from refiners.hub import Hub

    return Hub.from_environment().receipts.folder.parent / "catalog"


def current() -> Current | None:
    """Returns which copy was fetched last; None if none was, or it is not there any more."""
    home = fetched_home()
    try:
        found = msgspec.json.decode((home / "current.json").read_bytes(), type=Current)
        return found if (home / found.folder / "search.json").is_file() else None
    except (OSError, msgspec.DecodeError):
        return None


def folders() -> tuple[Path, ...]:
    """Returns the folders that are read, the fetched one before that of the wheel."""
    if named := os.environ.get(VARIABLE):
        return (Path(named),)
    fetched = current()
    return (SHIPPED,) if fetched is None else (fetched_home() / fetched.folder, SHIPPED)


def listed() -> tuple[Listed, ...]:
    """Returns the newest release of everything, sorted by name.

    Raises:
        CatalogError: A folder has no readable list.
    """
    first, *others = (_list_in(folder) for folder in folders())
    if not others:
        return first
    newest = {(one.kind, one.id): one for one in first}
    for one in (one for more in others for one in more):
        known = newest.setdefault((one.kind, one.id), one)
        if known.version != one.version and _is_newer(one.version, known.version):
            newest[one.kind, one.id] = one
    return tuple(sorted(newest.values(), key=lambda one: (one.name, one.id)))


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


def releases(one: Listed) -> tuple[Release, ...]:
    """Returns every release of an adapter or a model, as they were published.

    Raises:
        CatalogError: Its file is damaged.
    """
    known: dict[str, Release] = {}
    for folder in folders():
        for release in read_releases(entry_path(folder, one)):
            known.setdefault(release.version, release)
    return tuple(known.values())


def read_releases(path: Path) -> tuple[Release, ...]:
    """Returns the releases in one file; none if it is not there.

    Raises:
        CatalogError: It is damaged.
    """
    try:
        return tuple(_releases(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise CatalogError(
            f"{path} cannot be read: {error}.",
            hint="Restore it; if it was fetched, run refiners catalog forget.",
        ) from error


def _releases(content: bytes) -> Iterator[Release]:
    for line in content.splitlines():
        yield msgspec.json.decode(line, type=Release)


def entry_path(folder: Path, one: Listed | Release) -> Path:
    """Returns where the releases of an adapter or a model are kept."""
    return folder / "entries" / one.distribution / f"{one.kind}-{one.name}.jsonl"


def _is_newer(version: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version) > Version(other)
    except InvalidVersion:
        return False


def search(terms: tuple[str, ...], among: tuple[Listed, ...]) -> tuple[Listed, ...]:
    """Returns what has every term somewhere in its names, summary or bases; names count first."""
    wanted = [term.lower() for term in terms]

    def text(one: Listed) -> str:
        words = (one.id, one.kind, one.does, one.summary, *one.aliases, *one.bases)
        return " ".join(words).lower()

    found = [one for one in among if all(term in text(one) for term in wanted)]
    return tuple(
        sorted(found, key=lambda one: (not all(t in one.name for t in wanted), one.name, one.id))
    )
