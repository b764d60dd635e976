"""The lines of a catalog: what a release is, which ones are sound, and where they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from refiners.errors import CatalogError
from refiners.host.disk import PUBLIC, write_whole
from refiners.host.text import is_all_plain
from refiners.manifest.schema import Name
from refiners.manifest.version import version_of

_DISTRIBUTION: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)"
_VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}$(?!\n)"

Distribution = Annotated[
    str, Meta(pattern=_DISTRIBUTION, max_length=100, description="a name as indexes compare it")
]
"""The name of a distribution in its canonical spelling (PEP 503), so that it may be typed."""


class Listed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An adapter or a model that somebody published."""

    name: Name
    kind: Literal["adapter", "model"]
    distribution: Distribution
    summary: str
    version: Annotated[str, Meta(pattern=rf"{_VERSION}|^$")] = ""
    """The newest release."""
    bases: tuple[str, ...] = ()
    """The bases that an adapter has variants for; of a model its family."""
    aliases: tuple[Name, ...] = ()
    """Other names that lead to it."""
    does: str = ""
    """The kind of adapter, in a word."""

    @property
    def id(self) -> str:
        """Its canonical name, `distribution:name`."""
        return f"{self.distribution}:{self.name}"


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an adapter or a model, with its table of the manifest."""

    name: Name
    kind: Literal["adapter", "model"]
    distribution: Distribution
    version: Annotated[str, Meta(pattern=_VERSION)]
    spec: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.distribution}:{self.name} {self.version}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What all releases of one adapter or model have in common."""
        return self.kind, self.distribution, self.name


class _Variant(msgspec.Struct, frozen=True):
    base: Name | None = None


class _Sketch(msgspec.Struct, frozen=True):
    """What a list needs of a table of a manifest, of this schema or of a later one."""

    summary: str
    kind: str = ""
    family: Name = ""
    aliases: tuple[Name, ...] = ()
    variant: tuple[_Variant, ...] = ()


def listed_as(release: Release) -> Listed:
    """Returns the line of the list that a release has while it is the newest.

    Raises:
        ValueError: It is not sound: its version cannot be compared, its table lacks what a list
            shows, or its texts have characters that a terminal would obey.
    """
    if version_of(release.version) is None:
        raise ValueError(f"{release.version[:40]!r} is not a version that can be compared")
    sketch = msgspec.convert(release.spec, _Sketch)
    text = msgspec.json.encode(release.spec)
    is_simple = text.isascii() and b"\\" not in text and b"\x7f" not in text  # as nearly all are
    if not is_simple and not is_all_plain(release.spec):
        raise ValueError("it has control characters")
    if "\n" in f"{sketch.summary}{sketch.kind}":
        raise ValueError("its summary has several lines")
    bases = dict.fromkeys(variant.base or "any" for variant in sketch.variant)
    if not bases and not sketch.family:
        raise ValueError("it has neither a variant nor a family")
    return Listed(
        name=release.name,
        kind=release.kind,
        distribution=release.distribution,
        summary=sketch.summary,
        version=release.version,
        bases=tuple(bases) or (sketch.family,),
        aliases=sketch.aliases,
        does=sketch.kind,
    )


def entry_path(folder: Path, entry: Listed | Release) -> Path:
    """Returns where the releases of an adapter or a model are added."""
    own = folder / _own_name(entry)
    return own if own.is_file() else folder / _shared_name(entry)


def _own_name(entry: Listed | Release) -> str:
    return f"entries/{entry.distribution}/{entry.kind}-{entry.name}.jsonl"


def _shared_name(entry: Listed | Release) -> str:
    return f"entries/{hashlib.sha256(entry.distribution.encode()).hexdigest()[0]}.jsonl"


def belongs(release: Release, name: str) -> bool:
    """Whether a file of a catalog is one that a release may be in."""
    return name in (_own_name(release), _shared_name(release))


def entry_files(folder: Path) -> tuple[Path, ...]:
    """Returns all files with releases, in one order."""
    return tuple(sorted(folder.glob("entries/**/*.jsonl")))


def releases_of(folder: Path, entry: Listed | Release) -> tuple[Release, ...]:
    """Returns the releases of one adapter or model in a folder.

    Raises:
        CatalogError: A file of it is damaged, or contradicts itself.
    """
    key = entry.kind, entry.distribution, entry.name
    names = _own_name(entry), _shared_name(entry)
    releases = (release for name in names for release in read_releases(folder / name))
    return unique(release for release in releases if release.key == key)


def read_releases(path: Path) -> tuple[Release, ...]:
    """Returns the releases in one file; none if it is not there.

    Raises:
        CatalogError: It is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(path, error) from error
    return parse_releases(content, path)


def parse_releases(content: bytes, origin: Path | str) -> tuple[Release, ...]:
    """Returns the releases in the content of a file.

    Raises:
        CatalogError: It is damaged.
    """
    try:
        return tuple(_decoder.decode(line) for line in content.split(b"\n") if line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(origin, error) from error


_decoder: Final = msgspec.json.Decoder(Release)


def _unreadable(origin: Path | str, error: Exception) -> CatalogError:
    return CatalogError(
        f"{origin} cannot be read: {error}.",
        hint="Restore it; if it was fetched, run refiners catalog forget.",
    )


def unique(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Returns each release once, so that whoever checks them sees what whoever reads them sees.

    Raises:
        CatalogError: Two differ that have one version, in whatever spelling.
    """
    known: dict[tuple[str, ...], dict[str, Release]] = {}
    kept: list[Release] = []
    for release in releases:
        versions = known.setdefault(release.key, {})
        first = versions.setdefault(release.version, release)
        if first is release:
            kept.append(release)
        elif first != release:
            raise _contradiction(first, release)
    for versions in known.values():
        spellings: dict[Any, Release] = {}
        for release in versions.values() if len(versions) > 1 else ():
            first = spellings.setdefault(version_of(release.version) or release.version, release)
            if first is not release:
                raise _contradiction(first, release)
    return tuple(kept)


def _contradiction(first: Release, second: Release) -> CatalogError:
    return CatalogError(
        f"a catalog has {first} twice, and not the same (the other is called {second.version}).",
        hint="Nothing was changed; ask whoever keeps it.",
    )


def write_entries(folder: Path, releases: Iterable[Release]) -> None:
    """Writes releases into the files in which they belong; what was in these is replaced."""
    there = {path.relative_to(folder).as_posix() for path in entry_files(folder)}
    files: dict[str, list[bytes]] = {}
    for release in releases:
        own = _own_name(release)
        name = own if own in there else _shared_name(release)
        files.setdefault(name, []).append(msgspec.json.encode(release) + b"\n")
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        write_whole(folder / name, b"".join(lines), PUBLIC)
