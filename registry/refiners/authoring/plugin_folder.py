"""Reads the pyproject.toml in the source of a plugin, and finds the manifests that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from refiners.errors import OptionError
from refiners.installed.inventory import GROUPS, manifest_place
from refiners.manifest.schema import MANIFESTS
from refiners.manifest.toml import TomlError, load_toml

_EACH: Final = "*"
"""Stands for every key of a table."""
_TABLE: Final[Any] = dict[str, Any]
_TEXTS: Final[Any] = list[str]
_PARTS: Final[tuple[tuple[tuple[str, ...], Any, str], ...]] = (
    (("build-system",), _TABLE, "a table"),
    (("build-system", "build-backend"), str, "a text"),
    (("project",), _TABLE, "a table"),
    (("project", "name"), str, 'a text, such as "refiners-mine"'),
    (("project", "version"), str, 'a text, such as "1.0"'),
    (("project", "license"), str | dict[str, str], 'a text, such as "MIT"'),
    (("project", "license-files"), _TEXTS, 'a list of patterns, such as ["LICENSE"]'),
    (("project", "readme"), str | dict[str, str], 'the name of a file, such as "README.md"'),
    (("project", "keywords"), _TEXTS, 'a list of texts, such as ["refiners"]'),
    (("project", "classifiers"), _TEXTS, "a list of texts"),
    (("project", "dependencies"), _TEXTS, 'a list of texts, such as ["refiners-core>=1.0"]'),
    (("project", "urls"), _TABLE, 'a table, such as {Repository = "https://..."}'),
    (("project", "urls", _EACH), str, 'a text, such as "https://..."'),
    (("project", "entry-points"), _TABLE, "a table"),
    (("project", "entry-points", _EACH), _TABLE, "a table"),
    (("project", "entry-points", _EACH, _EACH), str, "'package:adapter.toml' or another reference"),
    (("tool",), _TABLE, "a table"),
    (("tool", "setuptools"), _TABLE, "a table"),
    (("tool", "setuptools", "package-data"), _TABLE, "a table"),
    (("tool", "setuptools", "package-data", _EACH), _TEXTS, "a list of patterns"),
)
"""The parts of a pyproject.toml that are used: the place, the type, and the type in words."""

Place = tuple[str, ...]
"""The keys that lead to a value."""


class ProjectFile(NamedTuple):
    """The parts of a pyproject.toml that have the types that they should have."""

    table: dict[str, Any]
    """The file without the values of other types."""
    faults: Mapping[Place, str]
    """The fault of each value that was left out, by its place."""


def read_project(path: Path) -> ProjectFile:
    """Reads a pyproject.toml.

    Raises:
        OSError, TomlError: The file cannot be read.
    """
    table, _ = load_toml(path)
    faults: dict[Place, str] = {}
    for pattern, wanted, words in _PARTS:
        for parent, place in list(_places(table, pattern)):
            try:
                msgspec.convert(parent[place[-1]], wanted)
            except msgspec.ValidationError:
                del parent[place[-1]]
                faults[place] = f"{_label(place)} should be {words}"
    return ProjectFile(table, faults)


def _places(
    table: dict[str, Any], pattern: Place, before: Place = ()
) -> Iterator[tuple[dict[str, Any], Place]]:
    """Yields the tables and places of the values that a pattern matches."""
    head, *rest = pattern
    for key in table if head == _EACH else (head,) if head in table else ():
        if rest:
            below = cast("dict[str, Any]", table[key])  # another pattern has checked it
            yield from _places(below, tuple(rest), (*before, key))
        else:
            yield table, (*before, key)


def _label(place: Place) -> str:
    """Returns how a person would write a place: the table in brackets, and the key."""
    keys = [key if re.fullmatch(r"[\w-]+", key, re.ASCII) else f'"{key}"' for key in place]
    return f"[{'.'.join(keys[:-1])}] {keys[-1]}" if len(keys) > 1 else keys[-1]


def is_shipped(table: Mapping[str, Any], package: str, file: str) -> bool:
    """Whether the wheel includes a data file; only setuptools leaves files out.

    Args:
        table: The table of a `ProjectFile`.
        package: The top-level package.
        file: The path of the file in it.
    """
    if "setuptools" not in table.get("build-system", {}).get("build-backend", "setuptools"):
        return True
    patterns = table.get("tool", {}).get("setuptools", {}).get("package-data", {})
    wanted = [*patterns.get(package, ()), *patterns.get("*", ())]
    return any(_matches(file, pattern) for pattern in wanted)


def _matches(file: str, pattern: str) -> bool:
    try:
        return Path(file).match(pattern)
    except ValueError:  # an empty pattern
        return False


def manifests_in(path: Path) -> tuple[Path, ...]:
    """Returns a manifest itself, or those that the pyproject.toml of a folder names.

    Raises:
        OptionError: The folder is not of a plugin, or its manifests are missing.
    """
    if path.is_file():
        if path.suffix != ".toml" or path.name == "pyproject.toml":
            raise OptionError(
                f"{path} is not a manifest.",
                hint=f"Name {', '.join(f'{kind}.toml' for kind in MANIFESTS)}, or the folder of "
                "a plugin.",
            )
        return (path,)
    project = project_of(path)
    places: list[Path] = []
    for value in entry_values(project):
        try:
            package, file = manifest_place(value)
        except ValueError as error:
            raise OptionError(
                f"{path / 'pyproject.toml'}: {error}.", hint="Run refiners validate on the folder."
            ) from error
        root = source_root(path, package)
        if root is None or not (root / package / file).is_file():
            raise OptionError(
                f"{path} has no {package}/{file}, which its pyproject.toml names.",
                hint="Correct the entry point, or write the manifest.",
            )
        places.append(root / package / file)
    if not places:
        raise OptionError(
            f"{path / 'pyproject.toml'} has no entry point for a manifest.",
            hint=f'Write [project.entry-points."{next(iter(GROUPS))}"].',
        )
    return tuple(dict.fromkeys(places))


def project_of(path: Path) -> dict[str, Any]:
    """Returns the table `project` of the pyproject.toml in a folder, without values of other types.

    Raises:
        OptionError: The folder has no such file, or it cannot be used.
    """
    file = path / "pyproject.toml"
    if not file.is_file():
        raise OptionError(
            f"{path} has no pyproject.toml.", hint="Name a manifest, or the folder of a plugin."
        )
    try:
        table, faults = read_project(file)
    except (OSError, TomlError) as error:
        raise OptionError(f"{file} cannot be read: {error}.", hint="Correct it first.") from error
    for place, fault in faults.items():
        if place == ("project",) or place[:2] == ("project", "entry-points"):
            raise OptionError(f"{file}: {fault}.", hint="Correct it first.")
    if "project" not in table:
        raise OptionError(f"{file} has no table [project].", hint="Write one, with a name.")
    return table["project"]


def entry_values(project: dict[str, Any]) -> Iterator[str]:
    """Yields the values of the entry points that name manifests."""
    points = project.get("entry-points", {})
    for group in GROUPS:
        yield from points.get(group, {}).values()


def source_root(path: Path, package: str) -> Path | None:
    """Returns the folder that has a package of a plugin; None if it is missing."""
    return next((f for f in (path / "src", path) if (f / package).is_dir()), None)
