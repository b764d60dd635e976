"""Loads the hook modules of other packages, where something runs or a source needs them."""

from __future__ import annotations

import warnings
from functools import cache

from refiners.errors import Notice
from refiners_core.hookspecs import load_installed


@cache
def load_hooks() -> None:
    """Loads the hook modules of other packages, once; each that cannot be loaded is left out."""
    for broken in load_installed():
        warnings.warn(
            f"the hooks {broken.name} of {broken.dist} could not be loaded and are left out: "
            f"{type(broken.error).__name__}: {broken.error}",
            Notice,
            stacklevel=3,
        )
