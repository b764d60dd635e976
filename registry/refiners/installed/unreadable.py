"""Finds foreign packages with garbled entry points, which break every lookup of entry points.

A lookup of importlib over all packages fails at a single garbled file, and torch makes one at the
end of its import, for device extensions: its import then fails. Where a file is garbled, torch is
made to skip these extensions before it is imported.
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
    """The name of the distribution; `unknown` if it lacks one that is safe to type."""
    reason: str


def garbled() -> Iterator[Garbled]:
    """Yields the packages whose entry points may break a lookup over all packages."""
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
    """Ensures that torch can be imported beside garbled packages; warns if it skips extensions."""
    if "torch" in sys.modules or os.environ.get(_SWITCH) == "0":
        return
    from importlib.metadata import entry_points

    try:
        entry_points(group="torch.backends")
    except Exception:
        os.environ[_SWITCH] = "0"
        culprits = (
            ", ".join(f"{package.dist} ({package.reason})" for package in garbled())
            or "some package"
        )
        warnings.warn(
            f"extensions of torch are skipped, because entry points cannot be read: {culprits}; "
            "refiners doctor has the command that fixes it.",
            Notice,
            stacklevel=3,
        )
