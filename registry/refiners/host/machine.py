"""Faults of this machine: its disk, its memory, its files. Nobody else is to blame for them."""

from __future__ import annotations

import errno
import re
from typing import Final

from refiners.errors import CacheError, MachineError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_SHAPE: Final = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP)
_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)
_OF_NETWORKS: Final = {
    getattr(errno, name)
    for name in (
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EHOSTUNREACH", "EHOSTDOWN", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ENOTCONN", "EPIPE", "ESHUTDOWN", "ETIMEDOUT"),
        *("EADDRNOTAVAIL", "EPROTO", "EALREADY", "EINPROGRESS", "EAGAIN", "EINTR"),
    )
    if hasattr(errno, name)
}
"""What system calls report of connections; all other numbers are about this machine."""
_OF_RUST: Final = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, hf_xet and safetensors among them, tell the number of a system error."""

_MEMORY: Final = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_ACCELERATOR: Final = re.compile(
    r"not compiled with \w+ enabled|No (CUDA|HIP|XPU) GPUs|no NVIDIA driver|NVIDIA driver on your|"
    r"invalid device ordinal|CUDA error|CUDA driver|libcu\w+\.so|libnv\w+\.so"
)
"""What torch and its libraries write where the accelerator, or its driver, is missing."""

CACHE: Final = "the cache"
_WAYS_OUT: Final = {
    "full": ("Make room (hf cache ls, hf cache rm), or set HF_HOME to a larger disk.",
             "Make room, or write to another disk."),
    "forbidden": ("Mend its permissions, or set HF_HOME to a folder of yours.",
                  "Mend its permissions."),
    "too long": ("Set HF_HOME to a shorter path; else ask the publisher for a shorter name.",
                 "Choose a shorter name."),
    "other": ("Mend it, or set HF_HOME to a folder of yours.", "Mend it, or choose another place."),
    "failed": ("Try again; if it stays so, set HF_HOME to a folder on another disk.",
               "Try again; if it stays so, choose a place on another disk."),
}  # fmt: skip
"""What to do about a fault of the cache, and about the same elsewhere."""


def number_of(error: BaseException) -> int | None:
    """Returns the number of the system error behind an exception; None if there is none."""
    if isinstance(error, OSError):
        return error.errno
    match = _OF_RUST.search(str(error)) if isinstance(error, Exception) else None
    return int(match[1]) if match else None


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, that of this machine or of its accelerator."""
    if isinstance(error, RuntimeError):
        return _MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def machine_fault(
    error: BaseException, doing: str, *, place: str = CACHE, needs: str = ""
) -> MachineError | None:
    """Returns our error for a fault of this machine; None if the fault lies elsewhere.

    Args:
        error: What was raised.
        doing: What was to be done, such as `fetching FILE`.
        place: What was to be read or written.
        needs: How much room it takes, where the disk is full.
    """
    if is_memory(error):
        return MachineError(
            f"memory ran out while {doing}: {_first_line(error)}.",
            hint='Close other programs, take a smaller size, or dtype="float16".',
        )
    if isinstance(error, RuntimeError | AssertionError | ImportError | NotImplementedError) and (
        _ACCELERATOR.search(str(error))
    ):
        return MachineError(
            f"this machine has no accelerator that can be used: {_first_line(error)}.",
            hint='Try device="cpu".',
        )
    if isinstance(error, UnicodeEncodeError):
        return CacheError(
            f"{place} cannot be used for {doing}: a name in it is not valid text ({error.reason}).",
            hint="Set HF_HOME to a folder whose name is plain text.",
        )

    def way_out(what: str) -> str:
        return _WAYS_OUT[what][place != CACHE]

    number = number_of(error)
    if number is None or number in _OF_NETWORKS or type(error).__module__ == "ssl":
        return None
    if isinstance(error, ConnectionError | TimeoutError):
        return None
    if number in _FULL:
        return CacheError(
            f"the disk is full; {doing} needs {needs or 'more room'}.",
            hint=way_out("full"),
        )
    if number in _FORBIDDEN:
        return CacheError(
            f"{place} cannot be written or read: {error}.",
            hint=way_out("forbidden"),
        )
    if number == errno.ENAMETOOLONG:
        return CacheError(
            f"{doing} needs a file with too long a name for this file system: {error}.",
            hint=way_out("too long"),
        )
    if number in _TOO_MANY:
        return MachineError(
            f"this process has too many files open for {doing}: {error}.", hint="ulimit -n 4096"
        )
    if number == errno.ENOMEM:
        return machine_fault(MemoryError(str(error)), doing)
    if number in _SHAPE:
        return CacheError(f"{place} cannot be used: {error}.", hint=way_out("other"))
    return CacheError(
        f"the file system of {place} failed while {doing}: {error}.",
        hint=way_out("failed"),
    )
