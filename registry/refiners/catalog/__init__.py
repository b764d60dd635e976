"""What is published, as this release knows it: one small file per adapter or model, read offline.

It tells "not installed" from "does not exist". The files are static and only ever added to.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An adapter or a model that somebody published."""

    name: str
    kind: Literal["adapter", "model"]
    distribution: str
    summary: str
    bases: tuple[str, ...] = ()
    """The bases that an adapter has variants for."""
    aliases: tuple[str, ...] = ()
    """Other names that lead to it."""

    @property
    def id(self) -> str:
        """Its canonical name, `distribution:name`."""
        return f"{self.distribution}:{self.name}"


@cache
def listed() -> tuple[Listed, ...]:
    """Returns the catalog, sorted by name."""
    files = sorted(
        set(Path(__file__).parent.glob("*.toml")) - {Path(__file__).parent / "advisories.toml"}
    )
    return tuple(msgspec.toml.decode(file.read_bytes(), type=Listed) for file in files)
