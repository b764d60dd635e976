"""The entries of a catalog: releases, their lines in the search list, and the files with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from refiners.catalog.conformance import Conformance
from refiners.catalog.publisher import Publisher
from refiners.errors import CatalogError
from refiners.host.disk import PUBLIC, write_whole
from refiners.host.text import is_all_plain
from refiners.manifest.schema import KindName
from refiners.manifest.term import Name
from refiners.manifest.version import version_of

LIST: Final = "search.json"
"""The file of a catalog with an entry for each plugin."""
_DISTRIBUTION: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)"
_VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}$(?!\n)"

Distribution = Annotated[
    str, Meta(pattern=_DISTRIBUTION, max_length=100, description="a name as indexes compare it")
]
"""The name of a distribution in its canonical spelling (PEP 503), safe to type in a shell."""


class Listed(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A published plugin, as the search list has it."""

    name: Name
    kind: KindName
    distribution: Distribution
    summary: str
    version: Annotated[str, Meta(pattern=rf"{_VERSION}|^$")] = ""
    """The newest release."""
    bases: tuple[str, ...] = ()
    """The bases for which an adapter has variants; for a model, its family; otherwise `any`."""
    aliases: tuple[Name, ...] = ()
    """Its other names."""
    does: str = ""
    """The kind of adapter in one word, such as `control`."""
    reads: bool = False
    """Whether the manifest says what files of users look like."""

    @property
    def id(self) -> str:
        """Its canonical name, `distribution:name`."""
        return f"{self.distribution}:{self.name}"


class Release(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a plugin, with its table in the manifest."""

    name: Name
    kind: KindName
    distribution: Distribution
    version: Annotated[str, Meta(pattern=_VERSION)]
    spec: dict[str, Any]
    publisher: Publisher | None = None
    """The attested publisher; None if the index had none."""
    conformance: Conformance | None = None
    """The report that the wheel carries; None without one."""

    def __str__(self) -> str:
        return f"{self.kind} {self.distribution}:{self.name} {self.version}"

    @property
    def key(self) -> tuple[str, str, str]:
        """The kind, distribution and name, which all releases of one plugin share."""
        return self.kind, self.distribution, self.name


class _Variant(msgspec.Struct, frozen=True):
    base: Name | None = None


class _Files(msgspec.Struct, frozen=True):
    layout: tuple[dict[str, Any], ...] = ()


class _Sketch(msgspec.Struct, frozen=True):
    """The keys of a manifest table that the search list needs, in this schema or a later one."""

    summary: str
    kind: str = ""
    family: Name = ""
    aliases: tuple[Name, ...] = ()
    variant: tuple[_Variant, ...] = ()
    file: _Files | None = None


def listed_as(release: Release) -> Listed:
    """Returns the entry of a release in the search list.

    Raises:
        ValueError: The release is malformed: its version cannot be compared, its table lacks a key
            of the list, or its texts have control characters.
    """
    if version_of(release.version) is None:
        raise ValueError(f"{release.version[:40]!r} is not a version that can be compared")
    sketch = msgspec.convert(release.spec, _Sketch)
    text = msgspec.json.encode(release)
    is_simple = text.isascii() and b"\\" not in text and b"\x7f" not in text  # the common case
    if not is_simple and not is_all_plain(msgspec.to_builtins(release)):
        raise ValueError("it has control characters")
    if "\n" in f"{sketch.summary}{sketch.kind}":
        raise ValueError("its summary has several lines")
    bases = dict.fromkeys(variant.base or "any" for variant in sketch.variant)
    if release.kind == "preprocessor":
        bases = {"any": None}
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
        reads=bool(sketch.variant and sketch.file and sketch.file.layout),
    )


def entry_path(folder: Path, entry: Listed | Release) -> Path:
    """Returns the file to which the releases of a plugin are added."""
    separate = folder / _separate_name(entry)
    return separate if separate.is_file() else folder / _shared_name(entry)


def _separate_name(entry: Listed | Release) -> str:
    return f"entries/{entry.distribution}/{entry.kind}-{entry.name}.jsonl"


def _shared_name(entry: Listed | Release) -> str:
    return f"entries/{hashlib.sha256(entry.distribution.encode()).hexdigest()[0]}.jsonl"


def belongs(release: Release, name: str) -> bool:
    """Whether a file of a catalog may contain a release."""
    return name in (_separate_name(release), _shared_name(release))


def entry_files(folder: Path) -> tuple[Path, ...]:
    """Returns all files with releases, sorted."""
    return tuple(sorted(folder.glob("entries/**/*.jsonl")))


def releases_of(folder: Path, entry: Listed | Release) -> tuple[Release, ...]:
    """Returns the releases of one plugin in a folder.

    Raises:
        CatalogError: A file with its releases is damaged, or contradicts itself.
    """
    key = entry.kind, entry.distribution, entry.name
    names = _separate_name(entry), _shared_name(entry)
    releases = (release for name in names for release in read_releases(folder / name))
    return unique(release for release in releases if release.key == key)


def read_releases(path: Path) -> tuple[Release, ...]:
    """Returns the releases in one file; none if the file does not exist.

    Raises:
        CatalogError: The file is damaged.
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
        CatalogError: The content is damaged.
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
    """Returns each release once, so that checks and readers see the same releases.

    Raises:
        CatalogError: Two different releases have the same version, in any spelling.
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
        f"a catalog has {first} twice, and not the same (the other has version {second.version}).",
        hint="Nothing was changed; report it to the maintainer of the catalog.",
    )


def publishers_in(folder: Path, dists: Iterable[str]) -> dict[str, dict[str, str]]:
    """Returns the identities of publishers by distribution and version; empty if not attested.

    Args:
        folder: A catalog.
        dists: The distributions to look up.

    Raises:
        CatalogError: A file with their releases is damaged.
    """
    wanted = frozenset(dists)
    names = {f"entries/{hashlib.sha256(dist.encode()).hexdigest()[0]}.jsonl" for dist in wanted}
    paths = [folder / name for name in sorted(names)]
    paths += [path for dist in sorted(wanted) for path in folder.glob(f"entries/{dist}/*.jsonl")]
    identities: dict[str, dict[str, str]] = {}
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        if b'"publisher"' not in content:  # the common case, without parsing
            continue
        for release in parse_releases(content, path):
            if release.distribution in wanted:
                who = release.publisher.identity if release.publisher else ""
                identities.setdefault(release.distribution, {})[release.version] = who
    return identities


def write_entries(folder: Path, releases: Iterable[Release]) -> None:
    """Writes releases into their files, replacing the content of these."""
    existing = {path.relative_to(folder).as_posix() for path in entry_files(folder)}
    files: dict[str, list[bytes]] = {}
    for release in releases:
        separate = _separate_name(release)
        name = separate if separate in existing else _shared_name(release)
        files.setdefault(name, []).append(msgspec.json.encode(release) + b"\n")
    (folder / "entries").mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        write_whole(folder / name, b"".join(lines), PUBLIC)
