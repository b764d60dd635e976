"""The copy of a catalog that was fetched: a folder of few files, and a pointer to the newest.

Any number of refreshes may run at once. Each writes a folder of its own and then, alone, turns the
pointer from the copy that it began with to its own; if another turned it before, it begins anew. So
no refresh undoes another, and the one that superseded a copy is the only one that removes it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from refiners.catalog import Current, current, fetched_home
from refiners.catalog.entry import Release, write_entries
from refiners.errors import CacheError
from refiners.host.disk import PUBLIC, write_whole

ADVISORIES: Final = "advisories.toml"
_FILES: Final = "files.json"
_POINTER: Final = "current.json"
_LOCK: Final = "refresh.lock"
_PATIENCE: Final = 60
"""Seconds to wait for another refresh."""
_LEFT: Final = 3600
"""Seconds after which a copy that no pointer names was left by a refresh that was killed."""


class Kept(msgspec.Struct, frozen=True):
    """A file of the repository that a copy was made from."""

    git: str
    """Git's name for its content."""
    releases: tuple[str, ...]
    """The releases in it, as they print."""


class Copy(NamedTuple):
    """What a repository publishes."""

    source: str
    commit: str
    releases: tuple[Release, ...]
    advisories: bytes
    files: dict[str, Kept]
    """The files that the releases were in, by their paths."""


def kept_files() -> dict[str, Kept]:
    """Returns from which files the copy that is in use was made; none if there is no copy."""
    here = current()
    try:
        raw = (fetched_home() / here.folder / _FILES).read_bytes() if here else b"{}"
        return msgspec.json.decode(raw, type=dict[str, Kept])
    except (OSError, msgspec.DecodeError):  # all of it is fetched then
        return {}


def install(copy: Copy, before: Current | None, write_list: Callable[[Path], None]) -> bool:
    """Puts a copy in place; until all of it is there, the one before it is read.

    Args:
        copy: What it should have.
        before: The copy that was in use when it was compared with what is known.
        write_list: Writes the list of a catalog from the releases in its folder.

    Returns:
        Whether it was put in place; not if another copy was meanwhile.

    Raises:
        CacheError: It cannot be written.
    """
    home = fetched_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{copy.commit[:8]}-", dir=home))
        is_in_place = False
        try:
            write_entries(folder, copy.releases)
            (folder / ADVISORIES).write_bytes(copy.advisories)
            (folder / _FILES).write_bytes(msgspec.json.encode(copy.files))
            write_list(folder)
            pointer = msgspec.json.encode(Current(folder.name, copy.source, copy.commit))
            with alone():
                if current() == before:
                    is_in_place = True
                    write_whole(home / _POINTER, pointer, PUBLIC)
        except BaseException:
            is_in_place = False
            raise
        finally:
            if not is_in_place:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise CacheError(
            f"the catalog cannot be written to {home}: {error}.",
            hint="Make room, mend its permissions, or set HF_HOME to a folder of yours.",
        ) from error
    if is_in_place:
        _remove_superseded(home, before)
    return is_in_place


def forget() -> bool:
    """Removes the catalog that was fetched, so that the one in the wheel is read alone."""
    home = fetched_home()
    was_there = current() is not None or any(home.glob("*/"))
    (home / _POINTER).unlink(missing_ok=True)  # first, so that nobody reads what is half removed
    shutil.rmtree(home, ignore_errors=True)
    return was_there


@contextmanager
def alone() -> Generator[None]:
    """Lets nobody else turn the pointer meanwhile.

    Raises:
        CacheError: Somebody else has held it back for long.
    """
    from filelock import FileLock, Timeout

    home = fetched_home()
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(home / _LOCK, timeout=_PATIENCE, is_singleton=True))
        except Timeout as error:
            raise CacheError(
                f"another refresh of the catalog has held {home / _LOCK} for {_PATIENCE} seconds.",
                hint="Wait for it, or end it, and run refiners catalog refresh again.",
            ) from error
        except (NotImplementedError, OSError):
            pass  # a file system without locks: two that meet within a millisecond may both turn it
        yield


def _remove_superseded(home: Path, before: Current | None) -> None:
    here = current()
    long_ago = time.time() - _LEFT
    for folder in home.iterdir():
        if not folder.is_dir() or (here is not None and folder.name == here.folder):
            continue
        is_mine = before is not None and folder.name == before.folder
        with contextlib.suppress(OSError):
            if is_mine or folder.stat().st_mtime < long_ago:
                shutil.rmtree(folder, ignore_errors=True)
