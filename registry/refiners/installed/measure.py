"""Finds the measures that installed packages declare, without importing a package.

A distribution declares a measure by an entry point in the group `refiners.measures`:
`name = "module:object"`. The name is usually that of the adapter that it measures.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from refiners.installed.declared import Declared, read_declared
from refiners.installed.inventory import Broken
from refiners_core.measure import GROUP as MEASURES

__all__ = ["MEASURES", "PackageMeasures", "package_measures"]

_NAME: Final = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


class PackageMeasures(NamedTuple):
    """The measures of all packages, sorted by name, and the entry points that are refused."""

    measures: tuple[Declared, ...]
    broken: tuple[Broken, ...]


def package_measures() -> PackageMeasures:
    """Reads the entry points of measures; faults of packages never raise."""
    return PackageMeasures(*read_declared(MEASURES, "measure", _NAME))
