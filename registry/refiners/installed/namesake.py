"""Detects another distribution with the import name `refiners`, and the command that removes it.

This package is the distribution `refiners-core`. On the package index `refiners` is the name of an
unrelated library, finegrain's, whose releases 0.0.1 to 0.4.0 install a package `refiners` too. Both
write `refiners/__init__.py`: the one that is installed last wins, and to uninstall either removes
the file of both.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from refiners.errors import Notice
from refiners.installed.distribution import DISTRIBUTION

NAMESAKE: Final = "refiners"
"""The name of the other distribution."""
RESTORE: Final = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
"""Writes our files again; the dependencies, torch among them, are left alone."""
REMOVE: Final = f"pip uninstall -y {NAMESAKE} && {RESTORE}"

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__))
_THEIRS: Final = os.path.join("fluxion", "__init__.py")
"""A file that every release of the other distribution has, and that no release of ours has."""


def faults() -> Iterator[tuple[str, str]]:
    """Yields each trace of the other distribution in this package, and the command that ends it."""
    if has_their_files():
        yield f"files of the distribution {NAMESAKE} are among those of {DISTRIBUTION}", REMOVE
    elif is_overwritten():
        yield f"the file {os.path.join(_PACKAGE, '__init__.py')} is not that of ours", RESTORE


def has_their_files() -> bool:
    """Whether the other distribution is installed into the folder of this package."""
    return os.path.isfile(os.path.join(_PACKAGE, _THEIRS))


def is_overwritten() -> bool:
    """Whether `import refiners` runs another `__init__.py` than ours, or none."""
    return "load_model" not in dir(sys.modules[__name__.partition(".")[0]])


def warn() -> None:
    """Warns with a `Notice` of each trace; never raises, even where warnings are errors."""
    for what, command in faults():
        with suppress(Notice):
            warnings.warn(f"{what}; run {command}", Notice, stacklevel=3)
