"""Finds the measures that installed packages declare, without importing a package.

A distribution declares a measure by an entry point in the group `refiners.measures`:
`name = "module:object"`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from refiners.installed.inventory import Broken, entry_points
from refiners_core.measure import GROUP as MEASURES

__all__ = ["MEASURES", "PackageMeasure", "PackageMeasures", "package_measures"]

_NAME: Final = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class PackageMeasure(NamedTuple):
    """A measure that a package declares."""

    name: str
    """Usually the name of the adapter that it measures."""
    dist: str
    version: str
    reference: str
    """The function or class, as `module:object`."""

    @property
    def id(self) -> str:
        """The canonical name, `distribution:name`."""
        return f"{self.dist}:{self.name}"


class PackageMeasures(NamedTuple):
    """The measures of all packages, sorted by name, and the entry points that are refused."""

    measures: tuple[PackageMeasure, ...]
    broken: tuple[Broken, ...]


def package_measures() -> PackageMeasures:
    """Reads the entry points of measures; faults of packages never raise."""
    broken: list[Broken] = []
    measures: list[PackageMeasure] = []
    for owner, _, name, reference in entry_points((MEASURES,), broken):
        if fault := _fault(name, reference):
            broken.append(Broken(name, owner.name, fault))
        else:
            measures.append(PackageMeasure(name, owner.name, owner.version, reference))
    measures.sort(key=lambda measure: (measure.name, measure.dist))
    return PackageMeasures(tuple(measures), tuple(broken))


def _fault(name: str, reference: str) -> str:
    """Returns why a measure is refused, as a clause; empty if it is not."""
    if _NAME.fullmatch(name) is None:
        return f"the name of its measure {name!r} should be of lower-case words and hyphens"
    if _REFERENCE.fullmatch(reference) is None:
        return f"its entry point {reference!r} should be 'module:object'"
    return ""
