"""Loads the hook modules of installed packages before models run or sources need them."""

from __future__ import annotations

import warnings
from functools import cache

from refiners.errors import Notice
from refiners.host.text import reason_of
from refiners.installed.unreadable import let_torch_load
from refiners_core.hookspecs import load_installed


@cache
def load_hooks() -> None:
    """Loads the hook modules of installed packages once, and skips those that fail to import."""
    let_torch_load()
    for broken in load_installed():
        warnings.warn(
            f"the hooks {broken.name} of {broken.dist} could not be loaded and are skipped: "
            f"{type(broken.error).__name__}: {reason_of(broken.error)}",
            Notice,
            stacklevel=3,
        )
