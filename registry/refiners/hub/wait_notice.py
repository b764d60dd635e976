"""Announces a wait before it becomes a long one."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Generator
from typing import Final

from refiners.errors import Notice

_SOON: Final = 0.7
"""Seconds after which a wait is announced."""
_announced: Final[set[str]] = set()


@contextlib.contextmanager
def announced(wait: str) -> Generator[None]:
    """Warns with a `Notice`, once in a process, if the block takes longer than a moment.

    Args:
        wait: The description of the wait.
    """
    if wait in _announced:
        yield
        return

    def announce() -> None:
        _announced.add(wait)
        with contextlib.suppress(
            Notice
        ):  # if warnings are errors, no caller of this thread could catch it
            warnings.warn(f"{wait} ...", Notice, stacklevel=1)

    timer = threading.Timer(_SOON, announce)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
