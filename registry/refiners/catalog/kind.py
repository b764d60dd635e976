"""The kinds of files that are known though no installed package reads them, and their bases."""

from __future__ import annotations

from typing import Final

import msgspec

from refiners.catalog import SHIPPED, listed, releases
from refiners.errors import CatalogError
from refiners.host.stamp import Stamp
from refiners.manifest.file_layout import FileTable, UserFile
from refiners.manifest.schema import AdapterSpec
from refiners.manifest.term import Fact, Name
from refiners.manifest.toml import TomlError, load_toml

_PATH: Final = SHIPPED / "kinds.toml"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab", kw_only=True):
    """A table of the list of kinds."""


class KnownKind(FileTable, frozen=True, kw_only=True):
    """A kind of file that no package of the catalog reads."""

    hint: str = ""
    """The next step for somebody who has such a file."""


class KnownBase(_Table, frozen=True, kw_only=True):
    """A base model that no installed package provides; its facts tell files for it apart."""

    name: Name
    facts: dict[str, Fact] = {}
    named_as: dict[str, tuple[str, ...]] = {}


class Kinds(_Table, frozen=True, kw_only=True):
    """The list of known kinds and bases."""

    kind: tuple[KnownKind, ...] = ()
    base: tuple[KnownBase, ...] = ()


def known_kinds() -> Kinds:
    """Returns the kinds and bases that the catalog in the wheel lists.

    Raises:
        CatalogError: The list is damaged.
    """
    stamp = Stamp.of(_PATH)
    if stamp is not None and (known := _kinds.get(stamp)) is not None:
        return known
    try:
        kinds = msgspec.convert(load_toml(_PATH)[0], Kinds)
    except (OSError, TomlError, msgspec.ValidationError) as error:
        raise CatalogError(
            f"{_PATH} cannot be read: {error}.",
            hint="Try pip install --force-reinstall refiners-core.",
        ) from error
    if stamp is not None:
        _kinds[stamp] = kinds
    return kinds


_kinds: Final[dict[Stamp, Kinds]] = {}


class PublishedReader(msgspec.Struct, frozen=True):
    """A published adapter that reads files, as its newest release declares them."""

    name: str
    dist: str
    file: UserFile


def published_readers() -> tuple[PublishedReader, ...]:
    """Returns the published adapters whose manifests say what their files look like.

    Raises:
        CatalogError: A file of the catalog is damaged.
    """
    readers: list[PublishedReader] = []
    for entry in listed():
        if not entry.reads:
            continue
        for release in releases(entry):
            if release.version == entry.version:
                try:
                    spec = msgspec.convert(release.spec, AdapterSpec)
                except msgspec.ValidationError:  # published with a later schema
                    continue
                if spec.file is not None:
                    readers.append(PublishedReader(entry.name, entry.distribution, spec.file))
    return tuple(readers)
