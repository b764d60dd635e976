"""Packages that have nothing to do with us and whose entry points nobody can read.

importlib's lookup over all packages fails on account of a single garbled file, and torch makes one
at the very end of its import, for extensions of devices: it cannot be imported then. Where a file
is garbled, torch is asked to leave these extensions out, before it is imported.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from refiners.errors import Notice
from refiners.installed import inventory
from refiners.installed.distribution import entry_points_in, name_on_disk, owner_of

_SWITCH: Final = "TORCH_DEVICE_BACKEND_AUTOLOAD"


class Garbled(NamedTuple):
    """A package whose entry points cannot be read."""

    dist: str
    """Its name; `unknown` if it has none that may be typed."""
    reason: str


def garbled() -> Iterator[Garbled]:
    """Yields the packages at whose entry points a lookup over all packages may fail."""
    for dist in inventory.distributions():
        text = dist.read_text("entry_points.txt") or ""
        reason = "it is not UTF-8" if "\ufffd" in text else ""
        try:
            for _ in entry_points_in(text):
                pass
        except ValueError as error:
            reason = str(error)
        if reason:
            owner = owner_of(dist)
            yield Garbled(owner.name if owner else name_on_disk(dist) or "unknown", reason)


@cache
def let_torch_load() -> None:
    """Makes sure that torch can be imported whatever else is installed; says what it costs."""
    if "torch" in sys.modules or os.environ.get(_SWITCH) == "0":
        return
    from importlib.metadata import entry_points

    try:
        entry_points(group="torch.backends")
    except Exception:
        os.environ[_SWITCH] = "0"
        culprits = ", ".join(f"{one.dist} ({one.reason})" for one in garbled()) or "some package"
        warnings.warn(
            f"extensions of torch are left out, for entry points cannot be read: {culprits}; "
            "refiners doctor says what mends that.",
            Notice,
            stacklevel=3,
        )
