"""Models in a repository of the Hub, without a package: `hf:organisation/name@revision/path`.

The revision and the path are optional; the path is that of a single file, or of the folder of the
model. The first load of a branch records its commit, and later loads use it; a commit in the
address means the same on every machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from refiners.choose.lock import LockedPlugin, lock_command, named, read_lock
from refiners.choose.policy import Guard
from refiners.errors import (
    LockError,
    PolicyError,
    UnsupportedError,
)
from refiners.hub.client import Hub
from refiners.hub.metadata import Contents
from refiners.installed.inventory import Installed
from refiners.manifest.address import PREFIX, parse_address
from refiners.manifest.folder_layout import TOP, is_path
from refiners.manifest.pattern import FILE_NAME
from refiners.manifest.schema import UNKNOWN, ModelSpec, WeightsFile
from refiners.sources.family import ReadJson, family_of_folder, json_of, known_families, top_of
from refiners.sources.fetch import fetch_all
from refiners.sources.listing import contents_of, means
from refiners.sources.place import PICKLES

_TEXTS: Final = (".txt", ".jinja")
_INDEX: Final = ".index."
"""The mark of the lists of files that hold the weights of one part."""


class RepositoryModel(Installed[ModelSpec], frozen=True):
    """A model in a repository; its version is the commit."""

    @property
    def id(self) -> str:
        """The address that the user wrote."""
        return self.name


def find_repository(
    what: str, hub: Hub, dtype: str | None = None, guard: Guard | None = None
) -> RepositoryModel:
    """Returns the files of a repository that make the model, and their commit.

    Args:
        what: The address, as `parse_address` reads it.
        hub: The Hub, which is asked once for the list of files; later calls use the first list.
        dtype: The preferred precision of the files; full precision by default.
        guard: The policy rules, checked before the Hub is asked.

    Raises:
        OptionError: The address is malformed.
        NetworkError, IntegrityError: The Hub does not answer, or contradicts itself.
        UnsupportedError: The repository does not hold a known model.
        PolicyError: The weights are pickles, or a rule refuses the repository.
    """
    address = parse_address(what)
    source = f"{PREFIX}{address.repository}"
    address, contents = contents_of(what, address, hub, guard)

    def pinned(path: str) -> WeightsFile:
        return WeightsFile(
            source=source,
            file=path,
            revision=contents.commit,
            sha256=contents.files[path].sha256,
            size=contents.files[path].size,
            license=contents.license,
            format=_format(path),
        )

    def read(path: str) -> Mapping[str, Any]:
        return json_of(fetch_all({path: pinned(path)}, hub)[path])

    chosen = choose(what, address.path, contents, dtype, read)
    return _repository(what, contents.commit, {path: pinned(path) for path in chosen})


def held_repository(
    what: str,
    hub: Hub,
    lock: str | Path | None = None,
    dtype: str | None = None,
    guard: Guard | None = None,
) -> RepositoryModel:
    """Returns a repository as a lock pins it; without a lock, as `find_repository` does.

    Raises:
        LockError: The lock does not name the repository.
    """
    path = named(lock)
    if path is None:
        return find_repository(what, hub, dtype, guard)
    parse_address(what)
    locked = read_lock(path).get("model", what)
    if locked is None:
        raise LockError(f"{what} is not in {path}.", hint=f"Run {lock_command(path, what)}.")
    return of_locked(locked, path)


def of_locked(locked: LockedPlugin, path: Path) -> RepositoryModel:
    """Returns a repository as a lock pins it, without asking the Hub.

    Raises:
        LockError: The lock pins too few files, or files of another repository.
    """
    names = [file.file or "" for file in locked.file]
    is_whole = len(names) == 1 or top_of(names) is not None
    if not is_whole or not all(
        file.revision == locked.version and means(locked.id, file) for file in locked.file
    ):
        raise LockError(
            f"{path} does not pin all files of {locked.id}, or pins files of another repository.",
            hint=f"Restore it from version control, or run {lock_command(path, locked.id)}.",
        )
    files = {
        file.file or "": WeightsFile(
            source=file.source,
            file=file.file,
            revision=file.revision or UNKNOWN,
            sha256=file.sha256,
            size=file.size,
            license=file.license or "",
            format=_format(file.file or ""),
        )
        for file in locked.file
    }
    return _repository(locked.id, locked.version, files)


def choose(
    what: str, path: str, contents: Contents, dtype: str | None, read: ReadJson
) -> tuple[str, ...]:
    """Returns the files that a model needs: its configurations, then its weights.

    Args:
        what: The address that the user wrote, for messages.
        path: A file or a folder in the repository.
        contents: The list of the repository.
        dtype: The preferred precision of the files; full precision by default.
        read: Fetches and reads a JSON file of the repository, if families differ in its fields.

    Raises:
        UnsupportedError: The repository does not hold a known model.
        PolicyError: The weights are pickles.
    """
    files = {name for name in contents.files if re.fullmatch(FILE_NAME, name)}
    if path in files and path.endswith(PICKLES):
        raise _pickled(what, path)
    if path in files and path.endswith(".safetensors"):
        return (path,)
    folder = f"{path}/" if path else ""
    inside = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    family = family_of_folder(what, inside, lambda name: read(f"{folder}{name}"))
    if family is None:
        raise _unknown_layout(what, path, files)
    table = family.spec.folder
    assert table is not None, "it fits the folder"
    chosen = [
        name
        for pattern in table.texts
        for name in sorted(inside)
        if _INDEX not in name and is_path(name, pattern)
    ]
    for part in table.weights:
        below = "" if part == TOP else f"{part}/"
        names = {name.removeprefix(below) for name in inside if name.startswith(below)}
        if names:
            chosen += [f"{below}{name}" for name in _weights(what, below, names, dtype)]
    return tuple(f"{folder}{name}" for name in dict.fromkeys(chosen))


def _weights(what: str, below: str, names: set[str], dtype: str | None) -> tuple[str, ...]:
    """Returns the weights in a folder: one file, or an index and the files that it lists."""
    from refiners_core.models.weight_files import choose_weights

    if chosen := choose_weights(names, dtype):
        return chosen
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        raise _pickled(what, f"{below}{pickles[0]}")
    where = f" in {below}" if below else ""
    raise UnsupportedError(
        f"{what} has no readable weights{where}; it has {', '.join(sorted(names))}.",
        hint="Try another revision, or load a model by name: refiners list.",
    )


def _pickled(what: str, path: str) -> PolicyError:
    return PolicyError(
        f"{what} has {path} as a pickle only, without a pinned hash; it could run any code.",
        hint="Use a revision with safetensors, or, if you trust the publisher, fetch the folder "
        "yourself and load its path.",
    )


def _unknown_layout(what: str, path: str, files: Iterable[str]) -> UnsupportedError:
    repository = what.removesuffix(f"/{path}") if path else what
    single = sorted(n for n in files if "/" not in n and n.endswith(".safetensors"))
    present = sorted({PurePosixPath(name).parts[0] for name in files})
    return UnsupportedError(
        f"{what} is not in a known layout: {known_families()}; {repository} has "
        f"{', '.join(present) or 'nothing'}.",
        hint=f"To load one of its files: {repository}/{single[0]}."
        if single
        else "Adapters are loaded by name: refiners list.",
    )


def _format(path: str) -> Literal["safetensors", "json", "text"]:
    suffix = PurePosixPath(path).suffix
    return "json" if suffix == ".json" else "text" if suffix in _TEXTS else "safetensors"


def _repository(what: str, commit: str, files: Mapping[str, WeightsFile]) -> RepositoryModel:
    spec = ModelSpec(
        factory="refiners_core.models.formats.open:open_model",
        summary="A model on the Hub",
        core_api=">=1.0,<2",
        family="published",
        weights=dict(_labelled(files)),
    )
    return RepositoryModel(what, "", commit, Path(), spec)


def _labelled(files: Mapping[str, WeightsFile]) -> Iterator[tuple[str, WeightsFile]]:
    """Yields files under distinct names that are valid in a manifest."""
    used: Counter[str] = Counter()
    for path, file in files.items():
        label = re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")
        used[label] += 1
        yield f"{label}-{used[label]}" if used[label] > 1 else label, file
