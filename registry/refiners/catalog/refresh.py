"""Brings the catalog up to date from a repository of the Hub, which has it as a folder has.

Nobody signs a catalog, so one that is fetched only informs: names, hints what to install, and
advisories. Which bytes are loaded, installed manifests say. It may only ever grow: one that lost or
changed what is known here is refused, and what is here stays.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from packaging.version import InvalidVersion, Version

from refiners.announce import Contents, Entry
from refiners.catalog import (
    VARIABLE,
    Current,
    Release,
    current,
    entry_path,
    fetched_home,
    folders,
    read_releases,
)
from refiners.catalog.build import write_list
from refiners.distribution import canonical
from refiners.errors import CacheError, CatalogError, OptionError
from refiners.fetch import fetch_all
from refiners.hub import Hub
from refiners.manifest import WeightsFile
from refiners.policy import Advisories, Advisory, Guard, read_rules
from refiners.repository import parse_address
from refiners.verify import git_hash_of

_LARGEST: Final = 5_000_000  # bytes of one file
_WORDS: Final = r"[a-z0-9]+(-[a-z0-9]+)*"
_ENTRY: Final = re.compile(rf"entries/{_WORDS}/(adapter|model)-{_WORDS}\.jsonl")
_ADVISORIES: Final = "advisories.toml"


class Refreshed(NamedTuple):
    """What a refresh came to."""

    source: str
    commit: str
    added: tuple[Release, ...]
    """Releases that were not known here."""
    advisories: tuple[Advisory, ...]
    """Advisories that were not known here."""


def refresh(source: str | None, hub: Hub, guard: Guard) -> Refreshed:
    """Fetches a catalog and uses it from now on, beside the one in the wheel.

    Args:
        source: `hf:organisation/name`, with `@revision` where that is wanted; None for the one
            that was used last.
        hub: Where it is fetched from.
        guard: The rules that hold here.

    Raises:
        OptionError: It is not said, or misspelt, from where.
        CatalogError: It is damaged, or it lost or changed what is known here; all of it is named.
        NetworkError, IntegrityError, CacheError, PolicyError: It cannot be had.
    """
    if named := os.environ.get(VARIABLE):
        raise OptionError(
            f"{VARIABLE} names {named}, so a fetched catalog would not be read.",
            hint=f"Unset {VARIABLE} first, or add to that folder: refiners catalog build.",
        )
    last = current()
    if source is None and last is None:
        raise OptionError(
            "no catalog was fetched before, so it is not known from where.",
            hint="Say so once: refiners catalog refresh hf:organisation/name.",
        )
    source = source or (last.source if last else "")
    address = parse_address(source)
    if address.path:
        raise OptionError(
            f"a catalog is a whole repository, {source} is a part of one.",
            hint=f"Leave /{address.path} out.",
        )
    asked = WeightsFile(source=f"hf:{address.repository}", file=_ADVISORIES, format="text")
    guard.admit_source(asked)
    contents = hub.contents(address.repository, address.revision)
    paths = _paths(asked, contents, hub)
    published, advisories = _read(source, paths)
    known = {str(one): one for one in _known()}
    warned = tuple(one for folder in folders() for one in _advisories(folder / _ADVISORIES))
    _check_grown(source, known, published, warned, advisories)
    _install(source, contents.commit, paths)
    added = tuple(one for name, one in published.items() if name not in known)
    return Refreshed(
        source, contents.commit, added, tuple(one for one in advisories if one not in warned)
    )


def forget() -> bool:
    """Removes the catalog that was fetched, so that the one in the wheel is read alone."""
    was_there = fetched_home().exists()
    shutil.rmtree(fetched_home(), ignore_errors=True)
    return was_there


def _paths(asked: WeightsFile, contents: Contents, hub: Hub) -> dict[str, Path]:
    """Returns a file for each file of a catalog: one that is here and is the same, or fetched."""
    wanted = {
        name: entry
        for name, entry in contents.files.items()
        if name == _ADVISORIES or _ENTRY.fullmatch(name)
    }
    if large := [name for name, entry in wanted.items() if entry.size > _LARGEST]:
        raise CatalogError(
            f"{asked.source} has {large[0]} of {wanted[large[0]].size} bytes, "
            f"no catalog has files above {_LARGEST}.",
            hint="Nothing was changed; ask whoever keeps it.",
        )
    paths = {name: path for name, entry in wanted.items() if (path := _same(name, entry))}
    missing = {
        name: msgspec.structs.replace(
            asked, file=name, revision=contents.commit, sha256=entry.sha256, size=entry.size
        )
        for name, entry in wanted.items()
        if name not in paths and entry.size
    }
    return paths | fetch_all(missing, hub)


def _same(name: str, entry: Entry) -> Path | None:
    for folder in folders():
        path = folder / name
        if path.is_file() and git_hash_of(path) == entry.git:
            return path
    return None


def _read(
    source: str, paths: Mapping[str, Path]
) -> tuple[dict[str, Release], tuple[Advisory, ...]]:
    """Reads all that was fetched.

    Raises:
        CatalogError: It is damaged, or says something that no catalog says.
    """
    found: dict[str, Release] = {}
    for name, path in paths.items():
        for release in read_releases(path) if name != _ADVISORIES else ():
            if entry_path(Path(), release) != Path(name) or not _is_sound(release):
                raise CatalogError(
                    f"{source} has {release!s} in {name}, which is no entry of a catalog.",
                    hint="Nothing was changed; ask whoever keeps it.",
                )
            found[str(release)] = release
    return found, _advisories(paths.get(_ADVISORIES))


def _is_sound(release: Release) -> bool:
    """Whether a release can be shown and typed: names of words, a version, no control characters.

    Its strings end up in terminals, and its distribution behind `pip install`.
    """
    try:
        Version(release.version)
    except InvalidVersion:
        return False
    is_named = release.distribution == canonical(release.distribution)
    return is_named and b"\\u00" not in msgspec.json.encode(release.spec)


def _advisories(path: Path | None) -> tuple[Advisory, ...]:
    return read_rules(path, Advisories).advisory if path and path.is_file() else ()


def _known() -> Iterator[Release]:
    for folder in folders():
        for path in sorted(folder.glob("entries/*/*.jsonl")):
            yield from read_releases(path)


def _check_grown(
    source: str,
    known: Mapping[str, Release],
    published: Mapping[str, Release],
    warned: tuple[Advisory, ...],
    advisories: tuple[Advisory, ...],
) -> None:
    said = [line for name, one in known.items() for line in _changes(name, one, published)]
    there = {one.id: one for one in advisories}
    said += [
        f"advisory {one.id}: {'changed' if one.id in there else 'gone'}"
        for one in warned
        if there.get(one.id) != one
    ]
    if said:
        lines = "".join(f"\n  {line}" for line in said)
        raise CatalogError(
            f"{source} lost or changed what is known here, and a catalog only ever grows:{lines}\n",
            hint="What is here stays in use. Ask whoever keeps that catalog, or take another.",
        )


def _changes(name: str, one: Release, published: Mapping[str, Release]) -> Iterator[str]:
    other = published.get(name)
    if other is None:
        yield f"{name}: gone"
    elif other != one and not Version(one.version).is_devrelease:  # these may be replaced
        keys: Iterator[str] = (
            key
            for key in sorted({*one.spec, *other.spec})
            if one.spec.get(key) != other.spec.get(key)
        )
        for key in keys:
            yield f"{name}: {key} was {_short(one.spec, key)}, is {_short(other.spec, key)}"


def _short(spec: Mapping[str, Any], key: str) -> str:
    text = msgspec.json.encode(spec.get(key)).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _install(source: str, commit: str, paths: Mapping[str, Path]) -> None:
    """Puts a copy in place; until all of it is there, the one before it is read."""
    home = fetched_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{commit[:8]}-", dir=home))
        try:
            for name, path in paths.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
            write_list(folder)
            pointer = folder / "current.json"
            pointer.write_bytes(msgspec.json.encode(Current(folder.name, source, commit)))
            pointer.replace(home / "current.json")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise CacheError(
            f"the catalog cannot be written to {home}: {error}.",
            hint="Make room, mend its permissions, or set HF_HOME to a folder of yours.",
        ) from error
    for old in home.iterdir():
        if old.is_dir() and old != folder:
            shutil.rmtree(old, ignore_errors=True)
