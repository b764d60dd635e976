"""What is published: one list to search, and one file per adapter or model, read offline.

    search.json                       the newest release of everything, for names and search
    entries/<distribution>/<kind>-<name>.jsonl     every release, a line each, only ever added to

It tells "not installed" from "does not exist". The copy in the wheel is read, or the folder that
REFINERS_CATALOG names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from refiners.errors import CatalogError
from refiners.stamp import Stamp

VARIABLE: Final = "REFINERS_CATALOG"
_SHIPPED: Final = Path(__file__).parent


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


def folder() -> Path:
    """Returns the folder of the catalog that is in use."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else _SHIPPED


def listed() -> tuple[Listed, ...]:
    """Returns the newest release of everything, sorted by name.

    Raises:
        CatalogError: The folder that REFINERS_CATALOG names has no readable list.
    """
    path = folder() / "search.json"
    stamp = Stamp.of(path)
    if stamp is not None and (path, stamp) in _lists:
        return _lists[path, stamp]
    try:
        found = msgspec.json.decode(path.read_bytes(), type=tuple[Listed, ...])
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise CatalogError(
            f"{path} cannot be read: {error}.",
            hint=f"Unset {VARIABLE} to use the copy that was installed with refiners.",
        ) from error
    _lists.clear()
    if stamp is not None:
        _lists[path, stamp] = found
    return found


_lists: Final[dict[tuple[Path, Stamp], tuple[Listed, ...]]] = {}
"""The list that this process has read, as long as it is not touched."""


def releases(one: Listed) -> tuple[Release, ...]:
    """Returns every release of an adapter or a model, as they were published.

    Raises:
        CatalogError: Its file is damaged.
    """
    path = entry_path(folder(), one)
    try:
        lines = path.read_bytes().splitlines()
        return tuple(msgspec.json.decode(line, type=Release) for line in lines)
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise CatalogError(f"{path} cannot be read: {error}.", hint="Build it anew.") from error


def entry_path(folder: Path, one: Listed | Release) -> Path:
    """Returns where the releases of an adapter or a model are kept."""
    return folder / "entries" / one.distribution / f"{one.kind}-{one.name}.jsonl"


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
