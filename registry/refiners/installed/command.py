"""Finds the commands that installed packages add to the shell, without importing a package.

A distribution declares a command by an entry point in the group `refiners.commands`:
`name = "module:object"`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from refiners.errors import AmbiguousNameError
from refiners.installed.distribution import canonical_id
from refiners.installed.inventory import Broken, entry_points
from refiners_core.command import GROUP as COMMANDS

__all__ = ["COMMANDS", "PackageCommand", "PackageCommands", "package_commands"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class PackageCommand(NamedTuple):
    """A command that a package adds to the shell."""

    name: str
    dist: str
    version: str
    reference: str
    """The object, as `module:object`."""

    @property
    def id(self) -> str:
        """The canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"


class PackageCommands(NamedTuple):
    """The commands of all packages, sorted by name, and the entry points that are refused."""

    commands: tuple[PackageCommand, ...]
    broken: tuple[Broken, ...]

    @property
    def unique(self) -> tuple[PackageCommand, ...]:
        """The commands whose names no other package has."""
        names = [command.name for command in self.commands]
        return tuple(command for command in self.commands if names.count(command.name) == 1)

    @property
    def namesakes(self) -> dict[str, tuple[PackageCommand, ...]]:
        """The commands of each name that several packages have."""
        shared = dict.fromkeys(c.name for c in self.commands if c not in self.unique)
        return {n: tuple(c for c in self.commands if c.name == n) for n in shared}

    def named(self, name: str) -> PackageCommand | None:
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
    broken: list[Broken] = []
    commands: list[PackageCommand] = []
    for owner, _, name, reference in entry_points((COMMANDS,), broken):
        if fault := _fault(name, reference, reserved):
            broken.append(Broken(name, owner.name, fault))
        else:
            commands.append(PackageCommand(name, owner.name, owner.version, reference))
    commands.sort(key=lambda command: (command.name, command.dist))
    return PackageCommands(tuple(commands), tuple(broken))


def _fault(name: str, reference: str, reserved: Collection[str]) -> str:
    """Returns why a command is refused, as a clause; empty if it is not."""
    if _NAME.fullmatch(name) is None:
        return f"the name of its command {name!r} should be of lower-case words and hyphens"
    if name in reserved:
        return f"its command {name!r} has the name of a command of Refiners itself"
    if _REFERENCE.fullmatch(reference) is None:
        return f"its entry point {reference!r} should be 'module:object'"
    return ""
