"""Finds the manifests of installed plugins without importing a plugin.

A distribution says where its manifest lies by one entry point, `package:adapter.toml` in the group
`refiners.adapters` (or `package:model.toml` in `refiners.models`). The package is located, not
imported. What cannot be read becomes a reason in the inventory; one bad plugin takes nobody along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from refiners.errors import ManifestError
from refiners.host.stamp import Stamp
from refiners.host.text import reason_of
from refiners.installed.distribution import (
    Owner,
    distributions,
    entry_points_in,
    name_on_disk,
    owner_of,
)
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import AdapterManifest, AdapterSpec, ModelManifest, ModelSpec

ADAPTERS: Final = "refiners.adapters"
MODELS: Final = "refiners.models"
UNKNOWN: Final = "unknown"
"""What a distribution is called whose metadata do not say."""

S = TypeVar("S", AdapterSpec, ModelSpec)
M = TypeVar("M", AdapterManifest, ModelManifest)

_GROUPS: Final = (ADAPTERS, MODELS)
_VALUE: Final = re.compile(r"(?P<package>[A-Za-z_]\w*)\s*:\s*(?P<file>\w+\.toml)", re.ASCII)
"""An object reference as importlib reads them, which has no hyphens."""


class Installed(msgspec.Struct, Generic[S], frozen=True):
    """An adapter or a model that is installed, as its manifest describes it."""

    name: str
    dist: str
    version: str
    path: Path
    """The manifest."""
    spec: S

    @property
    def id(self) -> str:
        """Its canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"

    @property
    def declared(self) -> S:
        """The table of the manifest, without what a user adds to it."""
        return self.spec


class Broken(msgspec.Struct, frozen=True):
    """An entry point that leads to nothing that can be read."""

    name: str
    dist: str
    error: str

    def __str__(self) -> str:
        return f"{self.dist}, which is installed but broken: {self.error}"


class Inventory(msgspec.Struct, frozen=True):
    """What is installed, sorted by name, and what of it is broken."""

    adapters: tuple[Installed[AdapterSpec], ...]
    models: tuple[Installed[ModelSpec], ...]
    broken: tuple[Broken, ...]


def adapters() -> tuple[Installed[AdapterSpec], ...]:
    """Returns the adapters that are installed, as their manifests describe them."""
    return scan().adapters


def models() -> tuple[Installed[ModelSpec], ...]:
    """Returns the base models that are installed, as their manifests describe them."""
    return scan().models


def broken() -> tuple[Broken, ...]:
    """Returns what is installed and cannot be read, with the reasons."""
    return scan().broken


def scan() -> Inventory:
    """Reads the manifests of all installed plugins; never raises on account of one."""
    found_adapters: list[Installed[AdapterSpec]] = []
    found_models: list[Installed[ModelSpec]] = []
    unread: list[Broken] = []
    for owner, group, point, value in _entry_points(unread):
        name, version = owner
        try:
            path = _manifest_path(value)
            if group == ADAPTERS:
                adapter = _read(path, AdapterManifest, name).adapter
                found_adapters += [Installed(n, name, version, path, s) for n, s in adapter.items()]
            else:
                model = _read(path, ModelManifest, name).model
                found_models += [Installed(n, name, version, path, s) for n, s in model.items()]
        except ManifestError as error:
            unread.append(Broken(point, name, error.message.rstrip()))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a stranger's package does, it is a reason
            unread.append(Broken(point, name, reason_of(error)))
    adapters, models = _once(found_adapters, unread), _once(found_models, unread)
    return Inventory(adapters, models, tuple(sorted(unread, key=lambda one: (one.dist, one.name))))


def _once(found: list[Installed[S]], unread: list[Broken]) -> tuple[Installed[S], ...]:
    """Returns each name of a distribution once, sorted; a second manifest for one is broken."""
    kept: dict[str, Installed[S]] = {}
    for plugin in found:
        first = kept.setdefault(plugin.id, plugin)
        if first.path != plugin.path:
            what = f"{plugin.path.name} has {plugin.name}, which {first.path.name} has as well"
            unread.append(Broken(plugin.name, plugin.dist, what))
    return tuple(sorted(kept.values(), key=lambda plugin: (plugin.name, plugin.dist)))


def _read(path: Path, kind: type[M], dist: str) -> M:
    """Reads a manifest, unless this process has read it and it has not been touched since."""
    stamp = Stamp.of(path)
    known = _manifests.get((path, kind))
    if known is not None and known[0] == stamp:
        return known[1]
    manifest = load_manifest(path, kind, dist=dist)
    if stamp is not None:
        _manifests[path, kind] = (stamp, manifest)
    return manifest


_manifests: Final[dict[tuple[Path, type], tuple[Stamp, Any]]] = {}


def package_folders(package: str) -> tuple[Path, ...]:
    """Returns where a top-level package lies, without importing it; empty if it is not there.

    Raises:
        BaseException: A finder on the import path failed, with whatever it raised.
    """
    try:
        spec = find_spec(package)
    except ValueError:  # a module of that name is loaded and has no spec
        return ()
    if spec is None or spec.submodule_search_locations is None:
        return ()
    return tuple(Path(folder) for folder in spec.submodule_search_locations)


def package_file(package: str, name: str) -> Path | None:
    """Returns a file of a top-level package, without importing it."""
    return next((f / name for f in package_folders(package) if (f / name).is_file()), None)


def _entry_points(unread: list[Broken]) -> Iterator[tuple[Owner, str, str, str]]:
    """Yields the entry points of our groups; importlib's own lookup stops at the first bad file."""
    seen: set[str] = set()
    for dist in distributions():
        on_disk = name_on_disk(dist)
        if on_disk in seen:  # shadowed by an earlier folder of sys.path, as for import
            continue
        # most distributions are none of ours: a look at the text saves reading their metadata
        text = dist.read_text("entry_points.txt") or ""
        if ADAPTERS in text or MODELS in text:
            yield from _points(dist, text, seen, unread)
        if on_disk:
            seen.add(on_disk)


def _points(
    dist: Any, text: str, seen: set[str], unread: list[Broken]
) -> Iterator[tuple[Owner, str, str, str]]:
    owner = owner_of(dist)
    if owner is None:
        what = f"{dist.path} names no distribution or no version that pip would accept"
        unread.append(Broken("METADATA", UNKNOWN, what))
        return
    if owner.name in seen:
        return
    seen.add(owner.name)
    try:
        points = [*entry_points_in(text, _GROUPS)]
    except ValueError as error:
        unread.append(Broken("entry_points.txt", owner.name, f"it cannot be read: {error}"))
        return
    yield from ((owner, *point) for point in points)


def manifest_place(value: str) -> tuple[str, str]:
    """Returns the package and the file that the value of an entry point names.

    Raises:
        ValueError: It is written in another way.
    """
    match = _VALUE.fullmatch(value)
    if match is None:
        raise ValueError(f"its entry point {value!r} should be 'package:adapter.toml'")
    return match["package"], match["file"]


def _manifest_path(value: str) -> Path:
    package, file = manifest_place(value)
    path = package_file(package, file)
    if path is None:
        folders = package_folders(package)
        what = f"{package} has no {file}" if folders else "its package is gone"
        if any(not folder.is_dir() for folder in folders):
            what = (
                f"{package} lies in an archive, {folders[0].parent}, and plugins are read from "
                f"folders: unpack it, or pip install it"
            )
        raise FileNotFoundError(f"{what} (entry point {value!r})")
    return path
