"""Checks a publication beyond its manifest: licence, page, name and range of the core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from refiners.catalog import listed
from refiners.errors import CatalogError
from refiners.host.text import is_all_plain, shown
from refiners.installed.dependency import version_of_package
from refiners.installed.distribution import DISTRIBUTION, canonical
from refiners.manifest.schema import KindName, Spec
from refiners.manifest.toml import load_toml
from refiners.manifest.version import specifiers

_BOUND: Final = '">=1.0,<2"'
_LICENSES: Final = ("LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*")
"""The files that builds take for licences by default."""

Problem = tuple[str, str]
"""The rule, and what breaks it."""


def project_problems(path: Path, project: Mapping[str, Any]) -> Iterator[Problem]:
    """Yields what a project lacks for a publication.

    Args:
        path: The `pyproject.toml`.
        project: Its table `[project]`, whose values have the types of `ProjectFile`.
    """
    yield from _license(path.parent, project)
    readme = project.get("readme")
    page = readme.get("file", "") if isinstance(readme, dict) else readme
    if not page or not (path.parent / str(page)).is_file():
        yield "package", 'no page for the index: readme = "README.md", and write that file'
    for text in project.get("dependencies", ()):
        for what in _core_faults(text):
            yield "core-range", f'{text!r} {what}: "{DISTRIBUTION}>=1.0.0.dev0,<2"'


def _core_faults(text: str) -> Iterator[str]:
    """Yields what a requirement lacks if it is that of the core."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return  # building the wheel reports it
    if canonical(wanted.name) != DISTRIBUTION:
        return
    installed = version_of_package(DISTRIBUTION)
    if wanted.url:
        yield "names an address, not a range of versions"
    elif not is_bounded(str(wanted.specifier)):
        yield "admits every later core, which may take names away"
    elif installed and not wanted.specifier.contains(installed, prereleases=True):
        yield f"excludes the core {installed} with which it is checked"
    if wanted.marker is not None and not wanted.marker.evaluate():
        yield "does not apply here"


def _license(folder: Path, project: Mapping[str, Any]) -> Iterator[Problem]:
    if not project.get("license"):
        yield "license", 'the license of the package is missing: license = "MIT"'
    texts: list[Path] = []
    for pattern in project.get("license-files", _LICENSES):
        try:
            texts += (path for path in folder.glob(pattern) if path.is_file())
        except (NotImplementedError, ValueError):  # an absolute or an empty pattern
            what = f"[project] license-files has {pattern!r}, which is not a relative pattern"
            yield "license", f'{what}: license-files = ["LICENSE"]'
            return
    if not any(path.stat().st_size for path in texts):
        yield "license", "no file has the text of the license: write LICENSE beside pyproject.toml"


def plugin_problems(dist: str, kind: KindName, name: str, spec: Spec) -> Iterator[Problem]:
    """Yields why a plugin should not be published as it is.

    Args:
        dist: The distribution that publishes it.
        kind: The kind of plugin.
        name: The name in the manifest.
        spec: The table of the manifest.
    """
    if not (spec.license or "").strip():
        yield "license", f"{name}: the license of the code is missing"
    if not is_bounded(spec.core_api):
        yield (
            "core-range",
            (
                f"{name}: core-api {spec.core_api!r} admits every later core, which may take names "
                f"away: core-api = {_BOUND}"
            ),
        )
    try:
        known = listed()
    except CatalogError:
        return
    ours = {name, *spec.aliases}
    for entry in known:
        taken = sorted(ours & {entry.name, *entry.aliases})
        if taken and entry.kind == kind and entry.distribution != dist:
            what = (
                f"{name}: {entry.distribution} has published {entry.kind} {taken[0]!r} already; "
                "choose another name, such as one that begins with yours"
            )
            yield "name", what
            return


def is_bounded(wanted: str) -> bool:
    """Whether version specifiers exclude some later version."""
    try:
        parts = [*specifiers(wanted.strip())]
    except ValueError:
        return True  # another check reports it
    return any(part.operator in ("<", "<=", "==", "~=", "===") for part in parts)


def unsafe_texts(path: Path) -> Iterator[Problem]:
    """Yields a problem for each key of a TOML file with characters that a terminal interprets.

    Raises:
        OSError, TomlError: The file cannot be read.
    """
    table, _ = load_toml(path)
    for place, text in _texts((), table):
        if not is_all_plain(text):
            yield (
                "text",
                (
                    f"{place}: {shown(text)[:80]!r} has characters that a terminal interprets or "
                    "hides; write plain text"
                ),
            )


def _texts(place: tuple[str, ...], value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield ".".join(place), value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield ".".join(place), str(key)
            yield from _texts((*place, str(key)), item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(place, item)
