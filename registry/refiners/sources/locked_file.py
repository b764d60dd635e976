"""The files of a user as a lock pins them."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Final

from refiners.choose.lock import Lock, LockedFile, LockedPlugin, lock_command
from refiners.choose.lookup import find_adapter
from refiners.errors import AmbiguousNameError, LockError
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Installed
from refiners.manifest.address import PREFIX
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import UNKNOWN, AdapterSpec, WeightsFile
from refiners.sources.listing import means
from refiners.sources.place import PICKLES, SUFFIX, format_of

_LABEL: Final = "file"


def locked_entry(
    lock: Lock, path: Path, adapter: Installed[AdapterSpec] | None, given: str
) -> tuple[Installed[AdapterSpec], LockedPlugin]:
    """Returns the entry of a lock for a file, and the adapter that reads it.

    Args:
        lock: The lock.
        path: The path of the lock, for messages.
        adapter: The adapter; None for the one with which the file is locked.
        given: The file as the user wrote it.

    Raises:
        LockError: The lock does not have the file, or not with this adapter.
        AmbiguousNameError: The lock has the file with several adapters.
    """
    entries = [
        entry
        for entry in lock.plugin
        if entry.kind == "adapter" and entry.id.partition("=")[2] == given
    ]
    if adapter is not None:
        wanted = canonical_id(f"{adapter.dist}:{adapter.name}")
        entries = [e for e in entries if canonical_id(e.id.partition("=")[0]) == wanted]
    if not entries:
        name = f"{adapter.name} with {given}" if adapter else given
        raise LockError(
            f"{name} is not in {path}.",
            hint=f"Run {lock_command(path, f'{adapter.name}={given}' if adapter else given)}.",
            dist=adapter.dist if adapter else None,
        )
    if len(entries) > 1:
        ids = [entry.id.partition("=")[0] for entry in entries]
        raise AmbiguousNameError(
            f"{path} has {given} with {len(ids)} adapters: {' and '.join(ids)}.",
            hint=f'Name one: load_adapter("{ids[0]}", model, file="{given}").',
        )
    return adapter or find_adapter(entries[0].id.partition("=")[0]), entries[0]


def locked_files(locked: LockedPlugin, path: Path, name: str) -> dict[str, WeightsFile]:
    """Returns the pinned files of a user by label.

    Args:
        locked: The entry of the lock.
        path: The path of the lock, for messages.
        name: The name of the adapter.

    Raises:
        LockError: The lock does not pin the file that it names.
    """
    given = locked.id.partition("=")[2]
    files = {f.name: f for f in locked.file if f.name.partition("-")[0] == _LABEL}
    main = files.get(_LABEL)
    is_pinned = all(file.sha256 != UNKNOWN for file in files.values())
    if main is None or not is_pinned or not _is_of(main, given):
        raise LockError(
            f"{path} does not pin the file of {locked.id}.",
            hint=f"Run {lock_command(path, f'{name}={given}')}.",
            dist=locked.id.partition(":")[0],
        )
    return {label: _pinned(file) for label, file in files.items()}


def _is_of(file: LockedFile, given: str) -> bool:
    """Whether a locked file is the one that a user wrote, or its twin in safetensors."""
    stem, ending = posixpath.splitext(given)
    if ending in PICKLES and _is_of(file, f"{stem}{SUFFIX}"):
        return True
    if given.startswith(PREFIX):
        return means(given, file)
    place = file.source.removeprefix(f"{LOCAL}:")
    is_local = place != file.source
    return is_local and (place == given or Path(place).is_relative_to(Path(given)))


def _pinned(file: LockedFile) -> WeightsFile:
    name = file.file or file.source
    return WeightsFile(
        source=file.source,
        file=file.file,
        revision=file.revision or UNKNOWN,
        sha256=file.sha256,
        size=file.size,
        license=file.license or "",
        format=format_of(name),
    )
