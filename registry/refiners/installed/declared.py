"""Finds what installed packages declare by entry points, without importing a package."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from refiners.installed.inventory import Broken, entry_points

__all__ = ["Declared", "read_declared"]

_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class Declared(NamedTuple):
    """An object that a package declares, such as a command of the shell or a measure."""

    name: str
    dist: str
    version: str
    reference: str
    """The object, as `module:object`."""

    @property
    def id(self) -> str:
        """The canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"


def read_declared(
    group: str, noun: str, names: re.Pattern[str], reserved: Collection[str] = ()
) -> tuple[tuple[Declared, ...], tuple[Broken, ...]]:
    """Reads the entry points of a group; faults of packages never raise.

    Args:
        group: The group.
        noun: The kind of the objects, for messages.
        names: The pattern of valid names.
        reserved: The names that Refiners itself has, which no package may take.

    Returns:
        The objects, sorted by name and package, and the entry points that are refused.
    """
    broken: list[Broken] = []
    declared: list[Declared] = []
    for owner, _, name, reference in entry_points((group,), broken):
        if names.fullmatch(name) is None:
            fault = f"the name of its {noun} {name!r} should be of lower-case words and hyphens"
        elif name in reserved:
            fault = f"its {noun} {name!r} has the name of a {noun} of Refiners itself"
        elif _REFERENCE.fullmatch(reference) is None:
            fault = f"its entry point {reference!r} should be 'module:object'"
        else:
            declared.append(Declared(name, owner.name, owner.version, reference))
            continue
        broken.append(Broken(name, owner.name, fault))
    declared.sort(key=lambda each: (each.name, each.dist))
    return tuple(declared), tuple(broken)
