"""Recognises errors of this machine: of its disk, its memory, its files and its accelerator."""

from __future__ import annotations

import errno
import re
from typing import Final

from refiners.errors import CacheError, MachineError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_SHAPE: Final = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP)
_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)
_NETWORK_ERRORS: Final = {
    getattr(errno, name)
    for name in (
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EHOSTUNREACH", "EHOSTDOWN", "ENETDOWN"),
        *("ENETUNREACH", "ENETRESET", "ENOTCONN", "EPIPE", "ESHUTDOWN", "ETIMEDOUT"),
        *("EADDRNOTAVAIL", "EPROTO", "EALREADY", "EINPROGRESS", "EAGAIN", "EINTR"),
    )
    if hasattr(errno, name)
}
"""The errors of connections; all other numbers are errors of this machine."""
_OF_RUST: Final = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, such as hf_xet and safetensors, print the number of a system error."""

_MEMORY: Final = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_ACCELERATOR: Final = re.compile(
    r"not compiled with \w+ enabled|No (CUDA|HIP|XPU) GPUs|no NVIDIA driver|NVIDIA driver on your|"
    r"invalid device ordinal|CUDA error|CUDA driver|libcu\w+\.so|libnv\w+\.so"
)
"""The messages of torch and its libraries for a missing accelerator or driver."""

CACHE: Final = "the cache"
_HINTS: Final = {
    "full": ("Free some space (hf cache ls, hf cache rm), or set HF_HOME to a larger disk.",
             "Free some space, or write to another disk."),
    "forbidden": ("Change its permissions, or set HF_HOME to a folder of yours.",
                  "Change its permissions."),
    "too long": ("Set HF_HOME to a shorter path, or ask the publisher for a shorter name.",
                 "Choose a shorter name."),
    "other": ("Correct the path, or set HF_HOME to a folder of yours.",
              "Correct the path, or choose another."),
    "failed": ("Try again; if it fails again, set HF_HOME to a folder on another disk.",
               "Try again; if it fails again, choose a path on another disk."),
}  # fmt: skip
"""The hint for each error, in the cache and elsewhere."""


def number_of(error: BaseException) -> int | None:
    """Returns the number of the system error behind an exception; None for another exception."""
    if isinstance(error, OSError):
        return error.errno
    match = _OF_RUST.search(str(error)) if isinstance(error, Exception) else None
    return int(match[1]) if match else None


def is_memory(error: BaseException) -> bool:
    """Whether the memory of this machine or of its accelerator is exhausted."""
    if isinstance(error, RuntimeError):
        return _MEMORY.search(str(error)) is not None
    return isinstance(error, MemoryError)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def machine_fault(
    error: BaseException, doing: str, *, place: str = CACHE, needs: str = ""
) -> MachineError | None:
    """Returns the error of ours for an error of this machine; None for any other error.

    Args:
        error: The exception.
        doing: The action that failed, such as `fetching FILE`.
        place: The file or folder that the action reads or writes.
        needs: The space that the action needs, for a full disk.
    """
    if is_memory(error):
        return MachineError(
            f"memory ran out while {doing}: {_first_line(error)}.",
            hint='Close other programs, or try a smaller size or dtype="float16".',
        )
    if isinstance(error, RuntimeError | AssertionError | ImportError | NotImplementedError) and (
        _ACCELERATOR.search(str(error))
    ):
        return MachineError(
            f"this machine has no usable accelerator: {_first_line(error)}.",
            hint='Try device="cpu".',
        )
    if isinstance(error, UnicodeEncodeError):
        return CacheError(
            f"{place} cannot be used for {doing}: a name in it is not valid text ({error.reason}).",
            hint="Set HF_HOME to a folder whose name is plain text.",
        )

    def hint_for(kind: str) -> str:
        return _HINTS[kind][place != CACHE]

    number = number_of(error)
    if number is None or number in _NETWORK_ERRORS or type(error).__module__ == "ssl":
        return None
    if isinstance(error, ConnectionError | TimeoutError):
        return None
    if number in _FULL:
        return CacheError(
            f"the disk is full; {doing} needs {needs or 'more space'}.",
            hint=hint_for("full"),
        )
    if number in _FORBIDDEN:
        return CacheError(
            f"{place} cannot be written or read: {error}.",
            hint=hint_for("forbidden"),
        )
    if number == errno.ENAMETOOLONG:
        return CacheError(
            f"{doing} needs a file name that is too long for this file system: {error}.",
            hint=hint_for("too long"),
        )
    if number in _TOO_MANY:
        return MachineError(
            f"this process has too many files open for {doing}: {error}.", hint="ulimit -n 4096"
        )
    if number == errno.ENOMEM:
        return machine_fault(MemoryError(str(error)), doing)
    if number in _SHAPE:
        return CacheError(f"{place} cannot be used: {error}.", hint=hint_for("other"))
    return CacheError(
        f"the file system of {place} failed while {doing}: {error}.",
        hint=hint_for("failed"),
    )
