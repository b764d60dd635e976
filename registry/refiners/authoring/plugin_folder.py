"""Finds the manifests in the source of a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refiners.errors import OptionError
from refiners.installed.inventory import GROUPS, manifest_place
from refiners.manifest.schema import MANIFESTS
from refiners.manifest.toml import TomlError, load_toml


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
    """Returns the table `project` of the pyproject.toml in a folder.

    Raises:
        OptionError: The folder has no such file, or it cannot be read.
    """
    file = path / "pyproject.toml"
    if not file.is_file():
        raise OptionError(
            f"{path} has no pyproject.toml.", hint="Name a manifest, or the folder of a plugin."
        )
    try:
        project: Any = load_toml(file)[0].get("project")
    except (OSError, TomlError) as error:
        raise OptionError(f"{file} cannot be read: {error}.", hint="Correct it first.") from error
    if not isinstance(project, dict):
        raise OptionError(f"{file} has no table [project].", hint="Write one, with a name.")
    return project


def entry_values(project: dict[str, Any]) -> Iterator[str]:
    """Yields the values of the entry points that name manifests."""
    points = project.get("entry-points")
    for group in GROUPS:
        table = points.get(group) if isinstance(points, dict) else None
        yield from map(str, table.values() if isinstance(table, dict) else ())


def source_root(path: Path, package: str) -> Path | None:
    """Returns the folder that has a package of a plugin; None if it is missing."""
    return next((f for f in (path / "src", path) if (f / package).is_dir()), None)
