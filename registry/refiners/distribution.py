"""The distributions on the import path, by the few texts in which each says what it offers.

importlib.metadata knows every way in which one may be installed, and importing it takes as long as
all else that `refiners list` does. Nearly always it is a folder on the path, which is read here;
importlib is asked for what lies in archives and for what others' finders know.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

_NAME_LINE: Final = re.compile(r"^Name:[ \t]*(\S+)", re.MULTILINE)
_VERSION_LINE: Final = re.compile(r"^Version:[ \t]*(\S+)", re.MULTILINE)


class Folder:
    """A distribution whose metadata lie in a folder; importlib's own have the same method."""

    def __init__(self, path: str) -> None:
        self.path: Final = path

    def read_text(self, filename: str) -> str | None:
        """Returns one of its texts, with marks where it is no UTF-8; None if it is not there."""
        with (
            suppress(OSError),
            open(os.path.join(self.path, filename), encoding="utf-8", errors="replace") as file,
        ):
            return file.read()
        return None


class Owner(NamedTuple):
    """Who a distribution is."""

    name: str
    version: str


def distributions(path: Iterable[str] | None = None) -> Iterator[Any]:
    """Yields what is installed in some folders, each with its `read_text`; sys.path by default.

    Of two copies the one that Python would import comes first.
    """
    for entry in sys.path if path is None else path:
        if entry.endswith(".egg") or os.path.isfile(entry):  # archives, and eggs in either form
            from importlib import metadata

            yield from metadata.distributions(path=[entry])
            continue
        with suppress(OSError):
            for name in sorted(os.listdir(entry or ".")):
                if name.endswith((".dist-info", ".egg-info")):
                    yield Folder(os.path.join(entry, name))
    if path is None:
        yield from _found_by_others()


def _found_by_others() -> Iterator[Any]:
    """Yields what finders know that are not Python's own."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_distributions", None)
        if find is not None and getattr(finder, "__module__", "") != "_frozen_importlib_external":
            from importlib.metadata import DistributionFinder

            yield from find(DistributionFinder.Context())


def canonical(dist: str) -> str:
    """Returns the spelling that indexes compare: `Refiners_X.y` is `refiners-x-y`."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def owner_of(dist: Any) -> Owner | None:
    """Returns who a distribution is; None if its metadata is missing or garbled.

    Two lines are looked for: the parser of mail that importlib asks costs a thousand times that.
    """
    return owner_in(dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "")


def owner_in(metadata: str) -> Owner | None:
    """Returns whom metadata are of."""
    name, version = _NAME_LINE.search(metadata), _VERSION_LINE.search(metadata)
    return Owner(canonical(name[1]), version[1]) if name and version else None


def entry_points_in(text: str) -> Iterator[tuple[str, str, str]]:
    """Yields group, name and value of each entry point in an `entry_points.txt`.

    Raises:
        ValueError: A line is neither a group nor an entry point.
    """
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif line and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            if not (equals and group):
                raise ValueError(f"{line!r} is no entry point")
            yield group, name.strip(), value.strip()
