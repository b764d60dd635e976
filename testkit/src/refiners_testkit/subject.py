"""The package under test: its source tree, its project table and its manifest."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from refiners.errors import ManifestError
from refiners.installed.distribution import canonical
from refiners.installed.inventory import GROUPS, Installed, manifest_place
from refiners.manifest.reader import load_manifest
from refiners.manifest.schema import MANIFESTS, AdapterSpec, KindName, ModelSpec, Spec
from refiners.manifest.toml import TomlError, load_toml

from refiners_testkit.check import fail

S = TypeVar("S", AdapterSpec, ModelSpec)


@dataclass(frozen=True)
class Subject:
    """The source tree of a package, with the `pyproject.toml` that announces its plugins."""

    root: Path
    """The folder of the `pyproject.toml`."""
    table: dict[str, Any]
    """The content of the `pyproject.toml`."""

    @property
    def project(self) -> dict[str, Any]:
        """The table `[project]`."""
        return self.table["project"]

    @property
    def dist(self) -> str:
        """The canonical name of the distribution."""
        return canonical(str(self.project["name"]))

    @property
    def version(self) -> str:
        """The version; that of the installed distribution if the build computes it."""
        try:
            return str(self.project.get("version") or version(self.dist))
        except PackageNotFoundError:
            return "0"

    @property
    def manifests(self) -> tuple[tuple[KindName, str, Path], ...]:
        """The kind, the package and the path of each manifest that an entry point names."""
        return tuple(self._manifests())

    def _manifests(self) -> Iterator[tuple[KindName, str, Path]]:
        points: dict[str, dict[str, str]] = self.project.get("entry-points", {})
        places: set[tuple[KindName, str, str]] = {
            (kind, *manifest_place(value))
            for group, kind in GROUPS.items()
            for value in points.get(group, {}).values()
        }
        for kind, package, file in sorted(places):
            for folder in (self.root / "src", self.root):
                if (folder / package / file).is_file():
                    yield kind, package, folder / package / file
                    break

    @property
    def packages(self) -> tuple[str, ...]:
        """The names of the import packages that have a manifest."""
        return tuple(dict.fromkeys(package for _, package, _ in self.manifests))

    @property
    def source(self) -> Path:
        """The folder that holds the import packages."""
        return next((path.parents[1] for *_, path in self.manifests), self.root)

    def plugin(self, name: str, kind: type[S]) -> Installed[S]:
        """Returns a plugin as if it were installed, and makes its package importable."""
        known: list[str] = []
        for label, package, path in self.manifests:
            manifest = MANIFESTS[label]
            if manifest.spec is not kind:
                continue
            try:
                tables = load_manifest(path, manifest, dist=self.dist).tables
            except ManifestError as error:
                fail(str(error), f"Run refiners validate --strict {self.root}.")
            if name in tables:
                if find_spec(package) is None:
                    sys.path.insert(0, str(path.parents[1]))
                return Installed(name, self.dist, self.version, path, tables[name])
            known += tables
        what = f"no manifest of {self.dist} has {name!r}; it has {', '.join(known) or 'none'}."
        hint = f"Write name = {known[0]!r} in the test class." if known else "Add an entry point."
        return fail(what, hint)


@cache
def subject_of(place: Path) -> Subject:
    """Returns the package whose source tree contains a file."""
    for folder in place.parents:
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table, _ = load_toml(path)
        except (OSError, TomlError) as error:
            fail(f"{path} cannot be read: {error}", "Correct the file.")
        if set(GROUPS) & set(table.get("project", {}).get("entry-points", {})):
            return Subject(folder, table)
    return fail(
        f"no folder above {place} has a pyproject.toml with entry points of Refiners.",
        "Put the test into the package, or write root = Path(...) in the test class.",
    )


def specs(subject: Subject) -> dict[str, Spec]:
    """Returns the tables of all manifests of a package, by name."""
    return {
        name: spec
        for kind, _, path in subject.manifests
        for name, spec in load_manifest(path, MANIFESTS[kind], dist=subject.dist).tables.items()
    }
