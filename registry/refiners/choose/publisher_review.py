"""Compares publishers with the lock that is in use, or with what this machine has accepted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from refiners.choose.lock import (
    Lock,
    changed_publishers,
    named,
    read_lock,
    read_lock_or_empty,
)
from refiners.choose.publisher import PublisherChange, accept, notice, publisher_changes
from refiners.errors import LockError
from refiners.installed.distribution import canonical
from refiners.installed.inventory import Installed


def publisher_changes_here(plugins: Iterable[Installed[Any]]) -> tuple[PublisherChange, ...]:
    """Returns the changes of publishers since REFINERS_LOCK was written, or on this machine."""
    path = named(None)
    if path is not None and path.exists():
        try:
            return changed_publishers(plugins, read_lock(path))
        except LockError:  # a damaged lock is the error of the command that uses it
            pass
    return tuple(publisher_changes(plugins))


def review_publishers(path: Path, plugins: Iterable[Installed[Any]]) -> None:
    """Warns of publishers that changed before plugins are locked, and accepts the new ones.

    Args:
        path: The lock file, as it was written before; it need not exist.
        plugins: The plugins to lock.
    """
    plugins = tuple(plugins)
    try:
        lock = read_lock_or_empty(path)
    except LockError:  # a damaged lock is the error of its reader
        lock = Lock()
    locked = {canonical(entry.id.partition(":")[0]) for entry in lock.plugin if entry.publisher}
    changes = (
        *changed_publishers(plugins, lock),
        *publisher_changes(plugin for plugin in plugins if plugin.dist not in locked),
    )
    notice(changes, stacklevel=3)
    accept(changes)
