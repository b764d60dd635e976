"""Lets only one process at a time update a file."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from refiners.errors import CacheError
from refiners.host.shell import quoted

PATIENCE: Final = 60.0
"""Seconds to wait for another process, which holds the lock while it writes a small file."""


@contextmanager
def exclusive(path: Path, patience: float = PATIENCE) -> Generator[None]:
    """Holds a lock beside a file, `.NAME.lock`, and removes it afterwards.

    Without the folder, or on a file system without locks, no lock is held.

    Args:
        path: The file that is read, changed and written back in the block.
        patience: The seconds to wait for another process.

    Raises:
        CacheError: Another process has held the lock for too long.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        beside = path
        try:
            target = path.resolve()
            beside = target.with_name(f".{target.name}.lock")
            if target.parent.is_dir():  # filelock would make it
                stack.enter_context(FileLock(beside, timeout=patience))
                stack.callback(_remove, beside)
        except Timeout as error:
            raise CacheError(
                f"another command has held {beside} for {patience:g} seconds.",
                hint=f"Wait for it to end; if no other command runs: {quoted('rm', beside)}",
            ) from error
        except (OSError, NotImplementedError, RuntimeError):  # a link to itself is a RuntimeError
            pass
        yield


def _remove(lock: Path) -> None:
    """Removes the file of a lock that is held; a waiting process then makes a new one."""
    with suppress(OSError):
        lock.unlink()
