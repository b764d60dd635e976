"""Brings the catalog up to date from a repository of the Hub, which has it as a folder has.

Nobody signs a catalog, so one that is fetched only informs: names, hints what to install, and
advisories. Which bytes are loaded, installed manifests say. It may only ever grow: one that lost or
changed what is known here is refused, and what is here stays.
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
from refiners.hub.client import Hub
from refiners.hub.documents import read_documents
from refiners.hub.metadata import Contents, Entry
from refiners.hub.receipts import git_hash_of
from refiners.manifest.address import Address, parse_address
from refiners.manifest.schema import WeightsFile
from refiners.manifest.version import is_development

_LARGEST: Final = 5_000_000
"""The bytes of the file of one entry, or of the advisories."""
_LARGEST_SHARED: Final = 50_000_000
"""The bytes of a file of many entries."""
_LARGEST_OF_ALL: Final = 400_000_000
_TRIES: Final = 5
"""How often a refresh begins anew because another put its copy in place meanwhile."""
_WORDS: Final = r"[a-z0-9]+(-[a-z0-9]+)*"
_SHARED: Final = re.compile(r"entries/[0-9a-f]\.jsonl")
_ENTRY: Final = re.compile(rf"entries/{_WORDS}/(adapter|model)-{_WORDS}\.jsonl")


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
    guard.admit_source(WeightsFile(source=f"hf:{address.repository}", file=ADVISORIES))
    for number in range(_TRIES):
        # at first others are not kept waiting for our network; whoever loses twice keeps them
        with alone() if number > 1 else nullcontext():
            done = _attempt(source, address, hub)
        if done is not None:
            return done
    raise CatalogError(
        f"other refreshes put their copies of {source} in place {_TRIES} times meanwhile.",
        hint="What they fetched is in use; try again if something is missing.",
    )


def _attempt(source: str, address: Address, hub: Hub) -> Refreshed | None:
    """Refreshes once; None if another refresh came between."""
    before = current()
    contents = hub.contents(address.repository, address.revision)
    if before and (before.source, before.commit) == (source, contents.commit) and _is_readable():
        return Refreshed(source, contents.commit, (), ())
    known = {str(release): release for release in _known()}
    copy = _fetched(source, address, contents, hub, known)
    published = {str(release): release for release in copy.releases}
    advisories = parse_rules(copy.advisories, Advisories, f"{source}/{ADVISORIES}").advisory
    warned = steadily(_warned)
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
    """Returns what a repository publishes; what is here and did not change is not fetched again.

    Raises:
        CatalogError: It is damaged, or has what no catalog has.
    """
    wanted = _wanted(source, contents)
    kept = {
        name: Kept(file.git, file.releases)
        for name, file in kept_files().items()
        if name in wanted and file.git == wanted[name].git and known.keys() >= {*file.releases}
    }
    here = {name: [known[release] for release in file.releases] for name, file in kept.items()}
    here |= {name: [] for name, entry in wanted.items() if not entry.size}
    texts: dict[str, bytes] = {}
    for name in wanted.keys() - here.keys():
        if (path := _same(name, wanted[name])) is not None:
            texts[name] = path.read_bytes()
    missing = [name for name in wanted if name not in here and name not in texts]
    texts |= read_documents(hub, address.repository, contents, missing)
    advisories = texts.pop(ADVISORIES, b"schema = 1\n")
    here.pop(ADVISORIES, None)
    here |= {name: [*_sound(source, name, content)] for name, content in texts.items()}
    files = {
        name: Kept(wanted[name].git, tuple(map(str, releases))) for name, releases in here.items()
    }
    everything = unique(release for name in sorted(here) for release in here[name])
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
            f"{source} has {what}; a catalog may have {limit} there.",
            hint="Nothing was changed; ask whoever keeps it.",
        )
    return wanted


def _same(name: str, entry: Entry) -> Path | None:
    for folder in folders():
        path = folder / name
        if path.is_file() and git_hash_of(path) == entry.git:
            return path
    return None


def _sound(source: str, name: str, content: bytes) -> Iterator[Release]:
    """Yields the releases of a file that may be shown and typed.

    Raises:
        CatalogError: One is in the file of another, or is not sound.
    """
    for release in parse_releases(content, f"{source}/{name}"):
        reason = "" if belongs(release, name) else "it belongs in another file"
        try:
            listed_as(release)
        except ValueError as error:
            reason = str(error)
        if reason:
            raise CatalogError(
                f"{source} has {release!s:.200} in {name}, which is no entry of a catalog: "
                f"{reason}.",
                hint="Nothing was changed; ask whoever keeps it.",
            )
        yield release


def _warned(places: tuple[Path, ...]) -> tuple[Advisory, ...]:
    paths = [path for folder in places if (path := folder / ADVISORIES).is_file()]
    return tuple(one for path in paths for one in read_rules(path, Advisories).advisory)


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
    there = {advisory.id: advisory for advisory in advisories}
    lines += [
        f"advisory {advisory.id}: {'changed' if advisory.id in there else 'gone'}"
        for advisory in warned
        if there.get(advisory.id) != advisory
    ]
    if lines:
        text = "".join(f"\n  {line}" for line in lines)
        raise CatalogError(
            f"{source} lost or changed what is known here, and a catalog only ever grows:{text}\n",
            hint="What is here stays in use. Ask whoever keeps that catalog, or take another.",
        )


def _changes(name: str, before: Release, published: Mapping[str, Release]) -> Iterator[str]:
    after = published.get(name)
    if after is None:
        yield f"{name}: gone"
    elif after != before and not is_development(before.version):  # these may be replaced
        keys: Iterator[str] = (
            key
            for key in sorted({*before.spec, *after.spec})
            if before.spec.get(key) != after.spec.get(key)
        )
        for key in keys:
            yield f"{name}: {key} was {_short(before.spec, key)}, is {_short(after.spec, key)}"


def _short(spec: Mapping[str, Any], key: str) -> str:
    text = msgspec.json.encode(spec.get(key)).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
