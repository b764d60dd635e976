"""Notices whether a file has changed."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """The facts about a file that change with its contents.

    A program can set the modification time back, but not the time of the last status change.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Returns the stamp of a regular file; None for anything else."""
        try:
            status = path.stat()
        except (OSError, ValueError):  # a path with a null character is a ValueError
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
