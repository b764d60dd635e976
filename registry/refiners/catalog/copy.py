"""The fetched copy of a catalog: a folder of few files, and a pointer to the newest folder.

Any number of refreshes may run at once. Each writes a new folder and then, under a lock, moves the
pointer from the copy that it started from to the new one; if the pointer has moved meanwhile, it
starts again. So no refresh undoes another, and only the refresh that superseded a copy removes it.
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
"""The seconds to wait for another refresh."""
_LEFT: Final = 3600
"""The seconds after which a copy without a pointer counts as left by a killed refresh."""


class Kept(msgspec.Struct, frozen=True):
    """A file of the repository from which a copy was made."""

    git: str
    """The git hash of the content."""
    releases: tuple[str, ...]
    """The releases in the file, as `str()` gives them."""


class Copy(NamedTuple):
    """The catalog that a repository publishes."""

    source: str
    commit: str
    releases: tuple[Release, ...]
    advisories: bytes
    files: dict[str, Kept]
    """The files of the repository that have the releases, by path."""


def kept_files() -> dict[str, Kept]:
    """Returns the files from which the present copy was made; none without a copy."""
    pointer = current()
    try:
        raw = (fetched_home() / pointer.folder / _FILES).read_bytes() if pointer else b"{}"
        return msgspec.json.decode(raw, type=dict[str, Kept])
    except (OSError, msgspec.DecodeError):  # everything is fetched again
        return {}


def install(copy: Copy, before: Current | None, write_list: Callable[[Path], None]) -> bool:
    """Installs a copy in one step; until it is complete, readers see the previous copy.

    Args:
        copy: The content of the copy.
        before: The copy that was in use when the new one was compared with known entries.
        write_list: Writes the search list of the catalog in a folder.

    Returns:
        Whether the copy was installed; False if another copy was installed meanwhile.

    Raises:
        CacheError: The copy cannot be written.
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
            hint="Make room, fix its permissions, or set HF_HOME to a folder of yours.",
        ) from error
    if is_in_place:
        _remove_superseded(home, before)
    return is_in_place


def forget() -> bool:
    """Removes the fetched catalog; only the one in the wheel is read afterwards."""
    home = fetched_home()
    was_there = current() is not None or any(home.glob("*/"))
    (home / _POINTER).unlink(missing_ok=True)  # first, so that nobody reads a half-removed folder
    shutil.rmtree(home, ignore_errors=True)
    return was_there


@contextmanager
def alone() -> Generator[None]:
    """Keeps other refreshes from moving the pointer during the block.

    Raises:
        CacheError: Another refresh holds the lock for too long.
    """
    from filelock import FileLock, Timeout

    home = fetched_home()
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(home / _LOCK, timeout=_PATIENCE, is_singleton=True))
        except Timeout as error:
            raise CacheError(
                f"another refresh has held {home / _LOCK} for more than {_PATIENCE} seconds.",
                hint="Wait for it, or end it, and run refiners catalog refresh again.",
            ) from error
        except (NotImplementedError, OSError):
            pass  # without file locks, two that meet within a millisecond may both move the pointer
        yield


def _remove_superseded(home: Path, before: Current | None) -> None:
    pointer = current()
    long_ago = time.time() - _LEFT
    for folder in home.iterdir():
        if not folder.is_dir() or (pointer is not None and folder.name == pointer.folder):
            continue
        is_mine = before is not None and folder.name == before.folder
        with contextlib.suppress(OSError):
            if is_mine or folder.stat().st_mtime < long_ago:
                shutil.rmtree(folder, ignore_errors=True)
