"""Admits a package before its code is imported: policies, advisories, notices."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from refiners.choose.lock import named
from refiners.choose.policy import Guard
from refiners.choose.publisher import accept, notice, publisher_changes
from refiners.errors import DeprecationNotice
from refiners.installed.inventory import Installed


def guarded(plugin: Installed[Any] | None, lock: str | Path | None) -> Guard:
    """Returns the policies and advisories, after checking a package before its code is imported.

    Args:
        plugin: The plugin that is about to be used; None if it is not known yet.
        lock: The lock that the caller names.

    Raises:
        PolicyError: A rule or an advisory refuses the package.
    """
    guard = Guard.from_environment(is_locked=named(lock) is not None)
    if plugin is not None:
        admit(plugin, guard)
    return guard


def admit(plugin: Installed[Any], guard: Guard) -> None:
    """Checks a package, and warns if it is deprecated or has another publisher than before.

    Raises:
        PolicyError: A rule or an advisory refuses the package.
    """
    guard.admit(plugin)
    for message in guard.warnings(plugin):
        warnings.warn(message, DeprecationNotice, stacklevel=4)
    if not guard.is_locked:  # otherwise the lock was compared
        changes = (*publisher_changes((plugin,)),)
        notice(changes, stacklevel=4)
        accept(changes)
