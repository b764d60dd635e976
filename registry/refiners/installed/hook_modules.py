"""Loads the hook modules of other packages, where something runs or a source needs them."""

from __future__ import annotations

import warnings
from functools import cache

from refiners.errors import Notice
from refiners.host.text import reason_of
from refiners.installed.unreadable import let_torch_load
from refiners_core.hookspecs import load_installed


@cache
def load_hooks() -> None:
    """Loads the hook modules of other packages, once; each that cannot be loaded is left out."""
    let_torch_load()
    for broken in load_installed():
        warnings.warn(
            f"the hooks {broken.name} of {broken.dist} could not be loaded and are left out: "
            f"{type(broken.error).__name__}: {reason_of(broken.error)}",
            Notice,
            stacklevel=3,
        )
