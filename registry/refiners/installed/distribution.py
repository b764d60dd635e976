"""Reads the metadata of the distributions on the import path.

importlib.metadata knows every kind of installation, but importing it takes as long as the rest of
`refiners list`. The metadata nearly always lie in a folder on the path, which is read directly;
importlib reads archives and the results of other finders. The errors of a foreign finder or folder
cost only its own distributions.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

DISTRIBUTION: Final = "refiners-core"
"""The distribution that provides the packages `refiners` and `refiners_core`."""
_HEADER: Final = re.compile(r"^(Name|Version):(.*)$", re.MULTILINE | re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}")
_LARGEST: Final = 1_000_000
"""The maximum number of characters that are read; METADATA begins with the fields of pip."""


class Folder:
    """A distribution with a metadata folder; it has the `read_text` of importlib distributions."""

    def __init__(self, path: str) -> None:
        self.path: Final = path

    def read_text(self, filename: str) -> str | None:
        """Returns a metadata file, with replacement marks for invalid UTF-8; None if missing."""
        path = os.path.join(self.path, filename)
        with (
            suppress(OSError),
            open(path, encoding="utf-8", errors="replace", opener=_open_at_once) as file,
        ):
            return file.read(_LARGEST) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
        return None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a named pipe would block


class Owner(NamedTuple):
    """The name and version of a distribution."""

    name: str
    version: str


def distributions(path: Iterable[str] | None = None) -> Iterator[Any]:
    """Yields the distributions in some folders, each with a `read_text`; sys.path by default.

    Of several copies, the one that Python would import comes first.
    """
    for entry in sys.path if path is None else path:
        if not isinstance(entry, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            continue  # Python skips these as well
        if entry.endswith(".egg") or os.path.isfile(entry):  # archives, and eggs of both kinds
            yield from _all_good(lambda entry=entry: _found_by_importlib(entry))
            continue
        with suppress(OSError, ValueError):
            for name in sorted(os.listdir(entry or ".")):
                if name.endswith((".dist-info", ".egg-info")):
                    yield Folder(os.path.join(entry, name))
    if path is None:
        for finder in sys.meta_path:
            yield from _all_good(lambda finder=finder: _found_by_other(finder))


def _found_by_importlib(entry: str) -> Iterable[Any]:
    from importlib import metadata

    return metadata.distributions(path=[entry])


def _found_by_other(finder: Any) -> Iterable[Any]:
    """Returns the distributions of a finder, unless it is part of Python."""
    find = getattr(finder, "find_distributions", None)
    if find is None or getattr(finder, "__module__", "") == "_frozen_importlib_external":
        return ()
    from importlib.metadata import DistributionFinder

    return find(DistributionFinder.Context())


def _all_good(find: Callable[[], Iterable[Any]]) -> list[_Guarded]:
    """Returns the distributions that a finder yields before its first error."""
    good: list[_Guarded] = []
    try:
        for dist in find():
            good.append(_Guarded(dist))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return good
    return good


class _Guarded:
    """A distribution of a foreign finder; a failure to read a file counts as a missing file."""

    def __init__(self, dist: Any) -> None:
        self._dist: Final = dist

    @property
    def path(self) -> str:
        """The metadata folder; empty if unknown."""
        return str(getattr(self._dist, "_path", ""))

    def read_text(self, filename: str) -> str | None:
        """Returns a metadata file; None if it cannot be read."""
        with suppress(Exception):
            text = self._dist.read_text(filename)
            return text[:_LARGEST] if isinstance(text, str) else None
        return None


def canonical(dist: str) -> str:
    """Returns the canonical spelling of a name (PEP 503): `Refiners_X.y` is `refiners-x-y`."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def distribution_of(package: str) -> str:
    """Returns the distribution that provides a package, by the naming convention of plugins."""
    return DISTRIBUTION if package == "refiners" else canonical(package)


def canonical_id(name: str) -> str:
    """Returns `distribution:name` with the canonical name of the distribution."""
    if name.startswith("hf:"):
        return name
    id, equals, file = name.partition("=")  # the user's file that a lock stores with the name
    dist, colon, short = id.rpartition(":")
    return f"{canonical(dist)}{colon}{short}{equals}{file}"


def is_distribution(name: str) -> bool:
    """Whether a name is safe to type after `pip install` (PEP 508): not a path, no shell syntax."""
    return _NAME.fullmatch(name) is not None


def owner_of(dist: Any) -> Owner | None:
    """Returns the name and version of a distribution; None if its metadata is missing or garbled.

    Two lines are searched: the e-mail parser of importlib takes a thousand times as long.
    """
    return owner_in(dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "")


def owner_in(metadata: str) -> Owner | None:
    """Returns the name and version in a metadata text; None unless both are safe to type."""
    headers = metadata.replace("\r\n", "\n").partition("\n\n")[0]
    fields: dict[str, str] = {}
    for match in _HEADER.finditer(headers):
        fields.setdefault(match[1].lower(), match[2].strip())
    name, version = fields.get("name", ""), fields.get("version", "")
    if not is_distribution(name) or _VERSION.fullmatch(version) is None:
        return None
    return Owner(canonical(name), version)


def name_on_disk(dist: Any) -> str:
    """Returns the name of a distribution from the name of its metadata folder, without reading it.

    Empty if the distribution does not have such a folder.
    """
    folder = os.path.basename(getattr(dist, "path", ""))
    stem, dot, kind = folder.rpartition(".")
    name = stem.partition("-")[0]
    return canonical(name) if dot and kind.endswith("-info") and is_distribution(name) else ""


def entry_points_in(
    text: str, groups: Collection[str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yields group, name and value of each entry point in an `entry_points.txt`.

    Args:
        text: The content of the file.
        groups: The groups to read; all by default. Other groups may have garbled lines.

    Raises:
        ValueError: A line is neither a group nor an entry point.
    """
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif (groups is None or group in groups) and line and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            if not (equals and group):
                raise ValueError(f"{line!r} is not an entry point")
            yield group, name.strip(), value.strip()
