"""Fetches a newer catalog from a repository of the Hub, which has the files of a catalog folder.

Catalogs are not signed, so a fetched one only informs: it has names, hints of packages to install,
and advisories. The bytes that are loaded are pinned by installed manifests alone. A catalog may
only grow: one that lacks or changes a known release or advisory is refused, and the present copy
stays in use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from refiners.catalog import VARIABLE, current, folders, listed, steadily
from refiners.catalog.build import write_list
from refiners.catalog.copy import ADVISORIES, Copy, Kept, alone, install, kept_files
from refiners.catalog.entry import (
    Release,
    belongs,
    entry_files,
    listed_as,
    parse_releases,
    read_releases,
    unique,
)
from refiners.choose.policy import Guard
from refiners.choose.policy_rules import Advisories, Advisory, parse_rules, read_rules
from refiners.errors import CatalogError, OptionError
from refiners.host.disk import open_regular
from refiners.hub.client import Hub
from refiners.hub.documents import git_hash_of_bytes, read_documents
from refiners.hub.metadata import Contents, Entry
from refiners.manifest.address import Address, parse_address
from refiners.manifest.schema import WeightsFile
from refiners.manifest.version import is_development

_LARGEST: Final = 5_000_000
"""The maximum size in bytes of the file of one entry, or of the advisories."""
_LARGEST_SHARED: Final = 50_000_000
"""The maximum size in bytes of a file of many entries."""
_LARGEST_OF_ALL: Final = 400_000_000
_TRIES: Final = 5
"""The number of attempts while other refreshes install their copies first."""
_WORDS: Final = r"[a-z0-9]+(-[a-z0-9]+)*"
_SHARED: Final = re.compile(r"entries/[0-9a-f]\.jsonl")
_ENTRY: Final = re.compile(rf"entries/{_WORDS}/(adapter|model)-{_WORDS}\.jsonl")


class Refreshed(NamedTuple):
    """The outcome of a refresh."""

    source: str
    commit: str
    added: tuple[Release, ...]
    """The releases that this machine did not know."""
    advisories: tuple[Advisory, ...]
    """The advisories that this machine did not know."""


def refresh(source: str | None, hub: Hub, guard: Guard) -> Refreshed:
    """Fetches a catalog and uses it from now on, beside the one in the wheel.

    Args:
        source: `hf:organisation/name`, optionally followed by `@revision`; None for the source of
            the last refresh.
        hub: The Hub that has the catalog.
        guard: The policies and advisories.

    Raises:
        OptionError: The source is missing or malformed.
        CatalogError: The catalog is damaged, or lacks or changes known releases or advisories;
            the message lists them all.
        NetworkError, IntegrityError, CacheError, PolicyError: The catalog cannot be fetched,
            written, or is refused.
    """
    if named := os.environ.get(VARIABLE):
        raise OptionError(
            f"{VARIABLE} names {named}, so a fetched catalog would not be read.",
            hint=f"Unset {VARIABLE} first, or add to that folder: refiners catalog build.",
        )
    last = current()
    if source is None and last is None:
        raise OptionError(
            "no source is given, and no catalog was fetched before.",
            hint="Name it once: refiners catalog refresh hf:organisation/name.",
        )
    source = source or (last.source if last else "")
    address = parse_address(source)
    if address.path:
        raise OptionError(
            f"a catalog is a whole repository, {source} is a part of one.",
            hint=f"Leave /{address.path} out.",
        )
    guard.admit_source(WeightsFile(source=f"hf:{address.repository}", file=ADVISORIES))
    for number in range(_TRIES):
        # two attempts leave other refreshes free meanwhile; later ones block them
        with alone() if number > 1 else nullcontext():
            done = _attempt(source, address, hub)
        if done is not None:
            return done
    raise CatalogError(
        f"other refreshes installed their copies of {source} first, {_TRIES} times in a row.",
        hint="Their copy is in use; try again if something is missing.",
    )


def _attempt(source: str, address: Address, hub: Hub) -> Refreshed | None:
    """Refreshes once; None if another refresh installed its copy meanwhile."""
    before = current()
    contents = hub.contents(address.repository, address.revision)
    if before and (before.source, before.commit) == (source, contents.commit) and _is_readable():
        return Refreshed(source, contents.commit, (), ())
    known = {str(release): release for release in _known()}
    warned = steadily(_warned)
    if current() != before:  # what was read may be newer than what the Hub listed before
        return None
    copy = _fetched(source, address, contents, hub, known)
    published = {str(release): release for release in copy.releases}
    advisories = parse_rules(copy.advisories, Advisories, f"{source}/{ADVISORIES}").advisory
    _check_grown(source, known, published, warned, advisories)
    if not install(copy, before, write_list):
        return None
    added = tuple(release for name, release in published.items() if name not in known)
    news = tuple(advisory for advisory in advisories if advisory not in warned)
    return Refreshed(source, contents.commit, added, news)


def _is_readable() -> bool:
    try:
        listed()
    except CatalogError:
        return False
    return True


def _fetched(
    source: str,
    address: Address,
    contents: Contents,
    hub: Hub,
    known: Mapping[str, Release],
) -> Copy:
    """Returns the catalog of a repository, fetching only the files that changed.

    Raises:
        CatalogError: A file is damaged or too large, or has an entry that does not belong in it.
    """
    wanted = _wanted(source, contents)
    kept = {
        name: Kept(file.git, file.releases)
        for name, file in kept_files().items()
        if name in wanted and file.git == wanted[name].git and known.keys() >= {*file.releases}
    }
    by_file = {name: [known[release] for release in file.releases] for name, file in kept.items()}
    by_file |= {name: [] for name, entry in wanted.items() if not entry.size}
    texts: dict[str, bytes] = {}
    for name in wanted.keys() - by_file.keys():
        if (content := _installed(name, wanted[name])) is not None:
            texts[name] = content
    missing = [name for name in wanted if name not in by_file and name not in texts]
    texts |= read_documents(hub, address.repository, contents, missing)
    advisories = texts.pop(ADVISORIES, b"schema = 1\n")
    by_file.pop(ADVISORIES, None)
    by_file |= {name: [*_sound(source, name, content)] for name, content in texts.items()}
    files = {
        name: Kept(wanted[name].git, tuple(map(str, releases)))
        for name, releases in by_file.items()
    }
    everything = unique(release for name in sorted(by_file) for release in by_file[name])
    return Copy(source, contents.commit, everything, advisories, files)


def _wanted(source: str, contents: Contents) -> dict[str, Entry]:
    limits: dict[str, int] = {}
    for name in contents.files:
        if name == ADVISORIES or _ENTRY.fullmatch(name):
            limits[name] = _LARGEST
        elif _SHARED.fullmatch(name):
            limits[name] = _LARGEST_SHARED
    wanted = {name: contents.files[name] for name in limits}
    total = sum(entry.size for entry in wanted.values())
    large = next((name for name, entry in wanted.items() if entry.size > limits[name]), None)
    if large is not None or total > _LARGEST_OF_ALL:
        what = f"{large} of {wanted[large].size} bytes" if large else f"{total} bytes"
        limit = limits[large] if large else _LARGEST_OF_ALL
        raise CatalogError(
            f"{source} has {what}; the limit for a catalog is {limit} bytes.",
            hint="Nothing was changed; report it to the maintainer of the catalog.",
        )
    return wanted


def _installed(name: str, entry: Entry) -> bytes | None:
    """Returns the content of a file of a local copy if it equals the published one."""
    for folder in folders():
        try:
            with open_regular(folder / name) as file:
                content = file.read()
        except OSError:  # absent, or removed by another refresh meanwhile
            continue
        if git_hash_of_bytes(content) == entry.git:
            return content
    return None


def _sound(source: str, name: str, content: bytes) -> Iterator[Release]:
    """Yields the releases of a file, after checking that each is safe to print and to type.

    Raises:
        CatalogError: A release is in the wrong file, or is malformed.
    """
    for release in parse_releases(content, f"{source}/{name}"):
        reason = "" if belongs(release, name) else "its place is another file"
        try:
            listed_as(release)
        except ValueError as error:
            reason = str(error)
        if reason:
            raise CatalogError(
                f"{source} has an invalid entry in {name}, {release!s:.200}: {reason}.",
                hint="Nothing was changed; report it to the maintainer of the catalog.",
            )
        yield release


def _warned(places: tuple[Path, ...]) -> tuple[Advisory, ...]:
    paths = [path for folder in places if (path := folder / ADVISORIES).is_file()]
    return tuple(a for path in paths for a in read_rules(path, Advisories).advisory)


def _known() -> list[Release]:
    return steadily(lambda places: [
        release for folder in places for path in entry_files(folder)
        for release in read_releases(path)
    ])  # fmt: skip


def _check_grown(
    source: str,
    known: Mapping[str, Release],
    published: Mapping[str, Release],
    warned: tuple[Advisory, ...],
    advisories: tuple[Advisory, ...],
) -> None:
    lines = [line for name, release in known.items() for line in _changes(name, release, published)]
    published_advisories = {advisory.id: advisory for advisory in advisories}
    lines += [
        f"advisory {advisory.id}: {'changed' if advisory.id in published_advisories else 'gone'}"
        for advisory in warned
        if published_advisories.get(advisory.id) != advisory
    ]
    if lines:
        text = "".join(f"\n  {line}" for line in lines)
        raise CatalogError(
            f"{source} lacks or changes entries that this machine knows; a catalog only "
            f"grows:{text}\n",
            hint="The present copy stays in use. Ask the maintainer, or choose another catalog.",
        )


def _changes(name: str, before: Release, published: Mapping[str, Release]) -> Iterator[str]:
    after = published.get(name)
    if after is None:
        yield f"{name}: gone"
    elif after != before and not is_development(before.version):  # development versions may change
        keys: Iterator[str] = (
            key
            for key in sorted({*before.spec, *after.spec})
            if before.spec.get(key) != after.spec.get(key)
        )
        for key in keys:
            yield f"{name}: {key} was {_short(before.spec, key)}, is {_short(after.spec, key)}"
        if before.publisher and after.publisher and (
            before.publisher.identity != after.publisher.identity
        ):  # fmt: skip
            old, new = before.publisher.identity, after.publisher.identity
            yield f"{name}: the publisher was {old}, is {new}"


def _short(spec: Mapping[str, Any], key: str) -> str:
    text = msgspec.json.encode(spec.get(key)).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
