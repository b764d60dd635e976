"""Reads regular files only, and writes a file whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from io import BufferedReader
from pathlib import Path
from typing import Final

_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
PUBLIC: Final = 0o644
"""The permissions of a file that others may read."""
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def open_regular(path: Path) -> BufferedReader:
    """Opens a file for reading, and never waits for the other end of a pipe.

    Raises:
        OSError: The path does not exist, or is a folder, a pipe, a socket or a device.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file")
    return file


def read_private(path: Path, largest: int) -> bytes:
    """Reads a file that only this user can have written.

    Args:
        path: The file.
        largest: The most bytes of the file.

    Raises:
        OSError: The file cannot be read, is larger, belongs to another user, or is writable by
            others.
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        if hasattr(os, "geteuid") and (
            status.st_uid != os.geteuid() or status.st_mode & _OTHERS_MAY_WRITE
        ):
            raise PermissionError(f"{path} may have been written by another user")
        if status.st_size > largest:
            raise OSError(f"{path} has {status.st_size} bytes")
        return file.read(largest)


def write_whole(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replaces a file atomically: a reader sees the old content or the new.

    Args:
        path: The file, in a folder that exists.
        content: The new content.
        mode: The permissions; by default only the owner may read the file.

    Raises:
        OSError: The file cannot be written; no temporary file is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
