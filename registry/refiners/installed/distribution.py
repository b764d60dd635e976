"""The distributions on the import path, by the few texts in which each says what it offers.

importlib.metadata knows every way in which one may be installed, and importing it takes as long as
all else that `refiners list` does. Nearly always it is a folder on the path, which is read here;
importlib is asked for what lies in archives and for what others' finders know. What a finder or a
folder of somebody else raises costs its own distributions and no others.
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
"""The characters of a text that are read; what pip needs of METADATA is at its beginning."""


class Folder:
    """A distribution whose metadata lie in a folder; importlib's own have the same method."""

    def __init__(self, path: str) -> None:
        self.path: Final = path

    def read_text(self, filename: str) -> str | None:
        """Returns one of its texts, with marks where it is not UTF-8; None if it is not there."""
        path = os.path.join(self.path, filename)
        with (
            suppress(OSError),
            open(path, encoding="utf-8", errors="replace", opener=_open_at_once) as file,
        ):
            return file.read(_LARGEST) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
        return None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait for ever


class Owner(NamedTuple):
    """Who a distribution is."""

    name: str
    version: str


def distributions(path: Iterable[str] | None = None) -> Iterator[Any]:
    """Yields what is installed in some folders, each with its `read_text`; sys.path by default.

    Of two copies the one that Python would import comes first.
    """
    for entry in sys.path if path is None else path:
        if not isinstance(entry, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            continue  # which Python does not import from either
        if entry.endswith(".egg") or os.path.isfile(entry):  # archives, and eggs in either form
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
    """Returns what a finder knows that is not Python's own."""
    find = getattr(finder, "find_distributions", None)
    if find is None or getattr(finder, "__module__", "") == "_frozen_importlib_external":
        return ()
    from importlib.metadata import DistributionFinder

    return find(DistributionFinder.Context())


def _all_good(find: Callable[[], Iterable[Any]]) -> list[_Guarded]:
    """Returns what a finder finds until it fails, if it does."""
    good: list[_Guarded] = []
    try:
        for found in find():
            good.append(_Guarded(found))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return good
    return good


class _Guarded:
    """A distribution of somebody else's finder, whose failures are texts that are not there."""

    def __init__(self, found: Any) -> None:
        self._found: Final = found

    @property
    def path(self) -> str:
        """Where it lies, as far as it says."""
        return str(getattr(self._found, "_path", ""))

    def read_text(self, filename: str) -> str | None:
        """Returns one of its texts; None if it cannot be read."""
        with suppress(Exception):
            text = self._found.read_text(filename)
            return text[:_LARGEST] if isinstance(text, str) else None
        return None


def canonical(dist: str) -> str:
    """Returns the spelling that indexes compare: `Refiners_X.y` is `refiners-x-y`."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def distribution_of(package: str) -> str:
    """Returns the distribution that provides a package, if both are named as usual."""
    return DISTRIBUTION if package == "refiners" else canonical(package)


def canonical_id(name: str) -> str:
    """Returns `distribution:name` with the distribution as indexes compare it."""
    if name.startswith("hf:"):
        return name
    id, equals, file = name.partition("=")  # a file of the user's that a lock has with it
    dist, colon, short = id.rpartition(":")
    return f"{canonical(dist)}{colon}{short}{equals}{file}"


def is_distribution(name: str) -> bool:
    """Whether a name may be typed behind `pip install` (PEP 508): no path, no shell letters."""
    return _NAME.fullmatch(name) is not None


def owner_of(dist: Any) -> Owner | None:
    """Returns who a distribution is; None if its metadata is missing or garbled.

    Two lines are looked for: the parser of mail that importlib asks costs a thousand times that.
    """
    return owner_in(dist.read_text("METADATA") or dist.read_text("PKG-INFO") or "")


def owner_in(metadata: str) -> Owner | None:
    """Returns whom metadata are of; None unless it is a name and a version that may be typed."""
    headers = metadata.replace("\r\n", "\n").partition("\n\n")[0]
    found: dict[str, str] = {}
    for match in _HEADER.finditer(headers):
        found.setdefault(match[1].lower(), match[2].strip())
    name, version = found.get("name", ""), found.get("version", "")
    if not is_distribution(name) or _VERSION.fullmatch(version) is None:
        return None
    return Owner(canonical(name), version)


def name_on_disk(dist: Any) -> str:
    """Returns the name of a distribution as the name of its folder has it, which costs no reading.

    Installers write it there in one spelling; empty for one that lies in no such folder.
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
        text: Its content.
        groups: The groups that are looked at; all by default. Lines of others may be garbled.

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
                raise ValueError(f"{line!r} is no entry point")
            yield group, name.strip(), value.strip()
