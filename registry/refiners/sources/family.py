"""Finds the family that opens a model: by the names in its folder, its configurations, its header.

No package is imported to find out. Of several families that fit, the one with the most conditions
is meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

from refiners.choose.compatibility import check_api
from refiners.errors import AmbiguousNameError, IncompatibleError
from refiners.hub.tensor_header import Header
from refiners.installed.inventory import Installed, scan
from refiners.manifest.folder_layout import FolderTable
from refiners.manifest.schema import FamilySpec
from refiners.recognition.recogniser import Evidence, Reader, recognise
from refiners_core import API_VERSION

_DEPTH: Final = 4
"""The number of parts of the longest path that a pattern describes."""
ReadJson = Callable[[str], Mapping[str, Any]]
"""Returns the content of a JSON file by its path in the folder."""


def family_of_folder(
    what: str, names: Collection[str], read: ReadJson
) -> Installed[FamilySpec] | None:
    """Returns the family that opens a folder; None if no installed one does.

    Args:
        what: The folder or the address, for messages.
        names: The files in it, relative to it.
        read: Reads a JSON file of the folder.

    Raises:
        AmbiguousNameError: Families of several packages open it, with as many conditions.
        IncompatibleError: The family is for another version of the core.
    """
    fits: list[tuple[int, Installed[FamilySpec]]] = []
    for family in scan().families:
        folder = family.spec.folder
        if folder is not None and folder.fits(names) and _has_fields(folder, names, read):
            fits.append((folder.conditions, family))
    return _best(what, fits)


def family_of_file(what: str, read: Callable[[], Header | None]) -> Installed[FamilySpec] | None:
    """Returns the family that opens a single file; None if no installed one does.

    Args:
        what: The file, for messages.
        read: Reads its header, if a family describes files; None if it has no header.

    Raises:
        AmbiguousNameError: Families of several packages open it, with as many conditions.
        IncompatibleError: The family is for another version of the core.
    """
    families = [(family, family.spec.file) for family in scan().families if family.spec.file]
    header = read() if families else None
    if header is None:
        return None
    evidence = Evidence(header, header.metadata)
    fits: list[tuple[int, Installed[FamilySpec]]] = []
    for family, table in families:
        reader = Reader(table, "model", family.name, family.dist)
        fits += [(fit.layout.conditions, family) for fit in recognise(evidence, (reader,), ())]
    return _best(what, fits)


def could_be_whole(names: Collection[str]) -> bool:
    """Whether files of these names are a folder of an installed family."""
    folders = (family.spec.folder for family in scan().families)
    return any(folder is not None and folder.fits(names) for folder in folders)


def known_families() -> str:
    """Returns the installed families in words."""
    return " or ".join(family.spec.summary for family in scan().families) or "an installed family"


def files_below(folder: Path) -> list[str]:
    """Returns the files of a folder, as deep as families look, relative to it."""
    levels = (folder.glob("/".join("*" * depth)) for depth in range(1, _DEPTH + 1))
    return [path.relative_to(folder).as_posix() for level in levels for path in level
            if path.is_file()]  # fmt: skip


def json_of(path: Path) -> Mapping[str, Any]:
    """Returns the content of a JSON file; nothing if it is unreadable or not an object, which the
    code that opens the model reports."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", content) if isinstance(content, dict) else {}


def top_of(names: Collection[str]) -> str | None:
    """Returns the folder of a model, `.` or a path in its repository; None if there is none.

    Args:
        names: The files of the model in the repository.
    """
    first = next(iter(names), "")
    for top in PurePosixPath(first).parents:
        below = f"{top.as_posix()}/" if top.name else ""
        if all(name.startswith(below) for name in names) and could_be_whole(
            [name.removeprefix(below) for name in names]
        ):
            return top.as_posix()
    return None


def _has_fields(folder: FolderTable, names: Collection[str], read: ReadJson) -> bool:
    return all(path in names and folder.has_fields(path, read(path)) for path in folder.fields)


def _best(what: str, fits: list[tuple[int, Installed[FamilySpec]]]) -> Installed[FamilySpec] | None:
    most = max((conditions for conditions, _ in fits), default=0)
    best = {family.id: family for conditions, family in fits if conditions == most}
    if len(best) > 1:
        raise AmbiguousNameError(
            f"{what} is opened by {len(best)} families: {', '.join(best)}.",
            hint=f"pip uninstall one of {', '.join(f.dist for f in best.values())}.",
        )
    for family in best.values():
        if refusal := check_api(family, API_VERSION):
            raise IncompatibleError(
                f"{family.name} does not run on this core:", (refusal,), dist=family.dist
            )
        return family
    return None
