"""Lets one process at a time update a file."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from refiners.errors import CacheError
from refiners.host.shell import quoted

PATIENCE: Final = 60.0
"""Seconds to wait for another process; it holds the lock while it writes a small file."""


@contextmanager
def exclusive(path: Path, patience: float = PATIENCE) -> Generator[None]:
    """Holds a lock beside a file, `.NAME.lock`, and removes it afterwards.

    In a folder that does not exist, or on a file system without locks, nothing is held.

    Args:
        path: The file that is read, changed and written back in the block.
        patience: The seconds to wait for another process.

    Raises:
        CacheError: Another process has held the lock for too long.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        try:
            target = path.resolve()
            beside = target.with_name(f".{target.name}.lock")
            if target.parent.is_dir():  # filelock would make it
                stack.enter_context(FileLock(beside, timeout=patience))
                stack.callback(_remove, beside)
        except Timeout as error:
            raise CacheError(
                f"another command has held {beside} for {patience:g} seconds.",
                hint=f"Wait for it to end; if there is none: {quoted('rm', beside)}",
            ) from error
        except (OSError, NotImplementedError, RuntimeError):  # RuntimeError: a link to itself
            pass
        yield


def _remove(lock: Path) -> None:
    """Removes a lock that is still held; filelock asks again where the file has gone."""
    with suppress(OSError):
        lock.unlink()
