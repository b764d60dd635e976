"""Whether a file is still as it was when somebody looked."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """The facts that change when a file is touched.

    The time of its last change of state cannot be set back, as that of its contents can.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Returns the stamp of a regular file; None for anything else."""
        try:
            found = path.stat()
        except (OSError, ValueError):  # a path with a null character is a ValueError
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)
