"""Waits for whoever else downloads a file, but not for the dead.

The client lets one process at a time download a file: the others wait, without a word and without
an end, for a lock in the cache. Where a file system has no locks, a file that lies there is one,
and a process that was killed leaves it for ever. What such a process had received stays as well.
The client renames a download into place when it is complete, so a lock that is taken over wrongly
costs a second download and nothing else.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from refiners.errors import CacheError, Notice
from refiners.host.parallel import check_called_off
from refiners.host.shell import quoted

Take = Callable[..., AbstractContextManager[Any]]
"""Takes the lock at a path, or raises TimeoutError after `timeout` seconds."""

_GLANCE: Final = 1.0
"""Seconds between looks at a lock that somebody holds."""
SILENCE: Final = 15.0
"""Seconds without a new byte after which a download is dead: the client itself gives up earlier."""


def take_turn(lock: Path, blob: Path, take: Take, silence: float = SILENCE) -> None:
    """Returns when nobody else is downloading a file.

    Args:
        lock: The client's lock for it.
        blob: The file that it will become, beside the parts that were received so far.
        take: Takes a lock.
        silence: Seconds without a new byte after which a lock is taken over.

    Raises:
        CacheError: A lock was left behind, or something else than a file has the name of the file,
            and cannot be removed.
    """
    seen: object = None
    since = time.monotonic()
    is_announced = False
    while lock.exists() and _is_held(lock, take, _GLANCE):
        check_called_off()
        if (growth := [*_growth(blob)]) != seen:
            seen, since = growth, time.monotonic()
        elif time.monotonic() - since > silence:
            _take_over(lock)
            break
        if not is_announced:
            is_announced = True
            warnings.warn(
                f"waiting for another download of the same file, which holds {lock}; if "
                f"there is none: {quoted('rm', lock)}",
                Notice,
                stacklevel=2,
            )
    for part in idle_parts(blob, silence):
        with suppress(OSError):
            part.unlink()
    if blob.exists() and not blob.is_file():
        forget(blob, None)


def idle_parts(blob: Path, silence: float = SILENCE) -> Iterator[Path]:
    """Yields what dead downloads of a file left behind."""
    for part in blob.parent.glob(f"{blob.name}*.incomplete"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > silence:
                yield part


class Leftovers(NamedTuple):
    """Remains of dead processes in a cache."""

    parts: Mapping[Path, int]
    """Parts of files that nobody is downloading, with their sizes in bytes."""
    locks: tuple[Path, ...]
    """Locks whose holders have long been silent."""


def leftovers(cache: Path, take: Take, silence: float = SILENCE) -> Leftovers:
    """Returns the remains of dead processes in the client's cache."""
    return Leftovers(dict(_left_parts(cache, take)), tuple(_left_locks(cache, take, silence)))


def _left_parts(cache: Path, take: Take) -> Iterator[tuple[Path, int]]:
    for part in sorted(cache.glob("*/blobs/*.incomplete")):
        lock = lock_of(cache, part.parent.parent.name, part.name.partition(".")[0])
        if lock.exists() and _is_held(lock, take, 0.1):
            continue
        with suppress(OSError):
            yield part, part.stat().st_size


def _left_locks(cache: Path, take: Take, silence: float) -> Iterator[Path]:
    for lock in sorted((cache / ".locks").glob("*/*.lock")):
        blob = cache / lock.parent.name / "blobs" / lock.stem
        with suppress(OSError):
            times = [lock.stat().st_mtime, *(changed for _, _, changed in _growth(blob))]
            if time.time() - max(times) > silence and _is_held(lock, take, 0.1):
                yield lock


def forget(path: Path, dist: str | None) -> None:
    """Removes a name from the cache; a blob behind a link may belong to others and stays.

    Raises:
        CacheError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"{path} is damaged and cannot be removed: {error.strerror}.",
            hint=f"Remove it: {quoted('rm', '-r', path)}",
            dist=dist,
        ) from error


def lock_of(cache: Path, folder: str, etag: str) -> Path:
    """Returns where the client keeps the lock of a file.

    Args:
        cache: The folder of its cache.
        folder: That of the repository in it.
        etag: What the Hub calls the contents of the file.
    """
    return cache / ".locks" / folder / f"{etag}.lock"


def _is_held(lock: Path, take: Take, seconds: float) -> bool:
    try:
        with take(lock, timeout=seconds):
            return False
    except TimeoutError:
        return True
    except (OSError, NotImplementedError):  # of which the client knows better what to say
        return False


def _growth(blob: Path) -> Iterator[tuple[str, int, float]]:
    for part in sorted(blob.parent.glob(f"{blob.name}*.incomplete")):
        with suppress(OSError):
            found = part.stat()
            yield part.name, found.st_size, found.st_mtime


def _take_over(lock: Path) -> None:
    try:
        lock.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"{lock} was left behind by another process and cannot be removed: {error}.",
            hint=f"Have its owner remove it: {quoted('rm', lock)}",
        ) from error
    warnings.warn(
        f"{lock} was left behind by another process; it was removed, and the file is fetched",
        Notice,
        stacklevel=3,
    )
