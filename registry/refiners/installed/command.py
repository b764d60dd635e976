"""Finds the commands that installed packages add to the shell, without importing a package.

A distribution declares a command by an entry point in the group `refiners.commands`:
`name = "module:object"`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from refiners.errors import AmbiguousNameError
from refiners.installed.declared import Declared, read_declared
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Broken
from refiners_core.command import GROUP as COMMANDS

__all__ = ["COMMANDS", "PackageCommands", "package_commands"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class PackageCommands(NamedTuple):
    """The commands of all packages, sorted by name, and the entry points that are refused."""

    commands: tuple[Declared, ...]
    broken: tuple[Broken, ...]

    @property
    def unique(self) -> tuple[Declared, ...]:
        """The commands whose names no other package has."""
        names = [command.name for command in self.commands]
        return tuple(command for command in self.commands if names.count(command.name) == 1)

    @property
    def namesakes(self) -> dict[str, tuple[Declared, ...]]:
        """The commands of each name that several packages have."""
        shared = dict.fromkeys(c.name for c in self.commands if c not in self.unique)
        return {n: tuple(c for c in self.commands if c.name == n) for n in shared}

    def named(self, name: str) -> Declared | None:
        """Returns the command with a name or canonical name; None if no package has it.

        Raises:
            AmbiguousNameError: Several packages have a command of this name.
        """
        id = canonical_id(name)
        matches = [command for command in self.commands if name == command.name or id == command.id]
        if len(matches) > 1:
            ids = " or ".join(f"refiners {command.id}" for command in matches)
            dists = " and ".join(command.dist for command in matches)
            raise AmbiguousNameError(
                f"{name!r} is a command of {len(matches)} packages: {dists}.",
                hint=f"Type {ids}, or pip uninstall one of them.",
            )
        return matches[0] if matches else None


def package_commands(reserved: Collection[str]) -> PackageCommands:
    """Reads the entry points of commands; faults of packages never raise.

    Args:
        reserved: The names of the commands of Refiners itself, which no package may take.
    """
    return PackageCommands(*read_declared(COMMANDS, "command", _NAME, reserved))
