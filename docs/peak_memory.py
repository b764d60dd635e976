"""Measures the peak memory of this process while a part of an example runs."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Runs a function and returns the peak of the resident memory in MB, and its result.

    Linux starts the peak anew for each call; elsewhere it is that of the process so far. An object,
    since Sphinx cannot store a function in its cache.
    """

    def __call__(self, function: Callable[[], Any]) -> tuple[float, Any]:
        if _CLEAR.exists():
            _CLEAR.write_text("5")
        result = function()
        return _peak(), result


def _peak() -> float:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**2
