"""Waits while another process downloads the same file, but not for a process that has died.

huggingface_hub lets one process at a time download a file: the others wait silently and without
end for a lock in its cache. On a file system without locks, the existence of a file is the lock,
and a process that is killed never removes it. The bytes that it received remain as well.
The client renames a download when it is complete, so taking over a lock by mistake costs a second
download and nothing else.
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
"""Acquires the lock at a path, or raises TimeoutError after `timeout` seconds."""

_INTERVAL: Final = 1.0
"""Seconds between attempts to acquire a lock."""
SILENCE: Final = 15.0
"""Seconds without a new byte after which a download is dead; the client gives up earlier."""


def take_turn(lock: Path, blob: Path, take: Take, silence: float = SILENCE) -> None:
    """Waits until no other process is downloading a file.

    Args:
        lock: The client's lock for the file.
        blob: The path of the complete download; partial downloads are beside it.
        take: Acquires a lock.
        silence: Seconds without a new byte after which a lock is taken over.

    Raises:
        CacheError: An abandoned lock, or a folder with the name of the file, cannot be removed.
    """
    last_growth: object = None
    since = time.monotonic()
    is_announced = False
    while lock.exists() and _is_held(lock, take, _INTERVAL):
        check_called_off()
        if (growth := [*_growth(blob)]) != last_growth:
            last_growth, since = growth, time.monotonic()
        elif time.monotonic() - since > silence:
            _take_over(lock)
            break
        if not is_announced:
            is_announced = True
            warnings.warn(
                f"waiting for another download of the same file, which holds {lock}; if no other "
                f"process is downloading it: {quoted('rm', lock)}",
                Notice,
                stacklevel=2,
            )
    for part in idle_parts(blob, silence):
        with suppress(OSError):
            part.unlink()
    if blob.exists() and not blob.is_file():
        forget(blob, None)


def idle_parts(blob: Path, silence: float = SILENCE) -> Iterator[Path]:
    """Yields the partial files that dead downloads of a file left behind."""
    for part in blob.parent.glob(f"{blob.name}*.incomplete"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > silence:
                yield part


class Leftovers(NamedTuple):
    """Files of dead processes in a cache."""

    parts: Mapping[Path, int]
    """Partial downloads that no process continues, with their sizes in bytes."""
    locks: tuple[Path, ...]
    """Locks whose holders have received nothing for long."""


def leftovers(cache: Path, take: Take, silence: float = SILENCE) -> Leftovers:
    """Returns the files that dead processes left in the client's cache."""
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
    """Removes a file from the cache; the target of a link may have other names, and stays.

    Raises:
        CacheError: The file cannot be removed.
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
    """Returns the path of the client's lock for a file.

    Args:
        cache: The client's cache.
        folder: The name of the repository's folder in it.
        etag: The Hub's name for the contents of the file.
    """
    return cache / ".locks" / folder / f"{etag}.lock"


def _is_held(lock: Path, take: Take, seconds: float) -> bool:
    try:
        with take(lock, timeout=seconds):
            return False
    except TimeoutError:
        return True
    except (OSError, NotImplementedError):  # the client reports these itself
        return False


def _growth(blob: Path) -> Iterator[tuple[str, int, float]]:
    for part in sorted(blob.parent.glob(f"{blob.name}*.incomplete")):
        with suppress(OSError):
            stat = part.stat()
            yield part.name, stat.st_size, stat.st_mtime


def _take_over(lock: Path) -> None:
    try:
        lock.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"{lock} was left behind by another process and cannot be removed: {error}.",
            hint=f"Have its owner remove it: {quoted('rm', lock)}",
        ) from error
    warnings.warn(
        f"{lock} was left behind by another process; it was removed",
        Notice,
        stacklevel=3,
    )
