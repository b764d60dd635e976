"""Finds the manifests of installed plugins without importing a plugin.

A distribution names its manifest by an entry point: `package:adapter.toml` in the group
`refiners.adapters`, and likewise for models and preprocessors. The package is located, not
imported. The inventory lists unreadable plugins with the reason; a broken plugin never affects
others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

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
from refiners.manifest.schema import (
    MANIFESTS,
    AdapterSpec,
    FamilySpec,
    KindName,
    Manifest,
    ModelManifest,
    ModelSpec,
    PreprocessorSpec,
    Spec,
)

GROUPS: Final[Mapping[str, KindName]] = {f"refiners.{kind}s": kind for kind in MANIFESTS}
"""The kind of plugins that each entry-point group lists."""
UNKNOWN: Final = "unknown"
"""The name of a distribution whose metadata lack one."""

S = TypeVar("S", bound=Spec, covariant=True)

_VALUE: Final = re.compile(r"(?P<package>[A-Za-z_]\w*)\s*:\s*(?P<file>\w+\.toml)", re.ASCII)
"""An object reference in the syntax of importlib, without hyphens."""


class Misfit(NamedTuple):
    """A file that is not for a model: the heading of the error, the reason and a hint."""

    heading: str
    reason: str
    hint: str


class Installed(msgspec.Struct, Generic[S], frozen=True):
    """An installed plugin, as its manifest describes it."""

    name: str
    dist: str
    version: str
    path: Path
    """The manifest."""
    spec: S

    @property
    def id(self) -> str:
        """The canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"

    @property
    def declared(self) -> S:
        """The table of the manifest, without a file that the user adds."""
        return self.spec

    def misfit(self, model: str, base: str | None, facts: Mapping[str, Any]) -> Misfit | None:
        """Returns why a file that the user adds does not suit a model.

        Args:
            model: The name of the model in messages.
            base: The base of the model.
            facts: The facts of the model.

        Returns:
            The reason; None if nothing contradicts the file, or without one.
        """
        return None


class Broken(msgspec.Struct, frozen=True):
    """An entry point whose manifest cannot be read."""

    name: str
    dist: str
    error: str

    def __str__(self) -> str:
        return f"{self.dist}, which is installed but broken: {self.error}"


class Inventory(msgspec.Struct, frozen=True):
    """The installed plugins of each kind, sorted by name, and the broken entry points."""

    adapters: tuple[Installed[AdapterSpec], ...]
    models: tuple[Installed[ModelSpec], ...]
    preprocessors: tuple[Installed[PreprocessorSpec], ...]
    families: tuple[Installed[FamilySpec], ...]
    """The families of models, which are opened without a name."""
    broken: tuple[Broken, ...]

    @property
    def plugins(self) -> tuple[Installed[Any], ...]:
        """The plugins of all kinds."""
        return (*self.adapters, *self.models, *self.preprocessors)


def is_plugin(entry_points: str) -> bool:
    """Whether the text of an `entry_points.txt` may declare a plugin."""
    return any(group in entry_points for group in GROUPS)


def adapters() -> tuple[Installed[AdapterSpec], ...]:
    """Returns the installed adapters, as their manifests describe them."""
    return scan().adapters


def models() -> tuple[Installed[ModelSpec], ...]:
    """Returns the installed base models, as their manifests describe them."""
    return scan().models


def preprocessors() -> tuple[Installed[PreprocessorSpec], ...]:
    """Returns the installed preprocessors, as their manifests describe them."""
    return scan().preprocessors


def broken() -> tuple[Broken, ...]:
    """Returns the installed packages that cannot be read, with the reasons."""
    return scan().broken


def scan() -> Inventory:
    """Reads the manifests of all installed plugins; faults of plugins never raise."""
    plugins: dict[KindName, list[Installed[Any]]] = {kind: [] for kind in MANIFESTS}
    families: list[Installed[Any]] = []
    unread: list[Broken] = []
    for owner, group, point, value in entry_points(tuple(GROUPS), unread):
        name, version = owner
        try:
            kind, path = GROUPS[group], _manifest_path(value)
            manifest = _read(path, MANIFESTS[kind], name)
            rows = manifest.tables.items()
            plugins[kind] += [Installed(n, name, version, path, s) for n, s in rows]
            if isinstance(manifest, ModelManifest):
                rows = manifest.family.items()
                families += [Installed(n, name, version, path, s) for n, s in rows]
        except ManifestError as error:
            unread.append(Broken(point, name, error.message.rstrip()))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # any fault of a foreign package becomes a reason
            unread.append(Broken(point, name, reason_of(error)))
    adapters, models, preprocessors = (_once(several, unread) for several in plugins.values())
    unread.sort(key=lambda broken: (broken.dist, broken.name))
    return Inventory(adapters, models, preprocessors, _once(families, unread), tuple(unread))


def _once(plugins: list[Installed[Any]], unread: list[Broken]) -> tuple[Installed[Any], ...]:
    """Returns each name of a distribution once, sorted; a second manifest for a name is broken."""
    kept: dict[str, Installed[Any]] = {}
    for plugin in plugins:
        first = kept.setdefault(plugin.id, plugin)
        if first.path != plugin.path:
            what = f"{plugin.path.name} has {plugin.name}, which {first.path.name} has as well"
            unread.append(Broken(plugin.name, plugin.dist, what))
    return tuple(sorted(kept.values(), key=lambda plugin: (plugin.name, plugin.dist)))


def _read(path: Path, kind: type[Manifest], dist: str) -> Manifest:
    """Reads a manifest, or returns the cached one if the file has not changed since."""
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
    """Returns the folders of a top-level package without importing it; empty if not installed.

    Raises:
        BaseException: A finder on the import path failed; its error propagates.
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


def entry_points(
    groups: Collection[str], unread: list[Broken]
) -> Iterator[tuple[Owner, str, str, str]]:
    """Yields the entry points of some groups; importlib would stop at the first garbled file.

    Args:
        groups: The groups.
        unread: The list to which packages that cannot be read are added.

    Returns:
        Owner, group, name and value of each.
    """
    seen: set[str] = set()
    for dist in distributions():
        on_disk = name_on_disk(dist)
        if on_disk in seen:  # shadowed by an earlier folder of sys.path, as in imports
            continue
        # most distributions are not plugins: a search in the text saves reading their metadata
        text = dist.read_text("entry_points.txt") or ""
        if any(group in text for group in groups):
            yield from _points(dist, text, groups, seen, unread)
        if on_disk:
            seen.add(on_disk)


def _points(
    dist: Any, text: str, groups: Collection[str], seen: set[str], unread: list[Broken]
) -> Iterator[tuple[Owner, str, str, str]]:
    owner = owner_of(dist)
    if owner is None:
        what = f"{dist.path} lacks a name or a version that pip accepts"
        unread.append(Broken("METADATA", UNKNOWN, what))
        return
    if owner.name in seen:
        return
    seen.add(owner.name)
    try:
        points = [*entry_points_in(text, groups)]
    except ValueError as error:
        unread.append(Broken("entry_points.txt", owner.name, f"it cannot be read: {error}"))
        return
    yield from ((owner, *point) for point in points)


def manifest_place(value: str) -> tuple[str, str]:
    """Returns the package and the file that the value of an entry point names.

    Raises:
        ValueError: The value is malformed.
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
                f"{package} is in an archive, {folders[0].parent}, and plugins are read from "
                f"folders: unpack it, or pip install it"
            )
        raise FileNotFoundError(f"{what} (entry point {value!r})")
    return path
