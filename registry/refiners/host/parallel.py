"""Runs jobs in threads, and cancels all of them when the user presses Ctrl-C.

Python waits for the threads of `concurrent.futures` before it exits, however long a download takes.
It does not wait for these threads, and a job that calls `check_called_off` regularly ends early.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Final, TypeVar

K = TypeVar("K")
T = TypeVar("T")

_INTERVAL: Final = 0.2
"""Seconds between checks of the waiting thread, which on Windows notices Ctrl-C only then."""
_GRACE: Final = 1.0
"""Seconds that cancelled jobs have to clean up."""

_end: Final[ContextVar[threading.Event | None]] = ContextVar("refiners_end", default=None)


class CalledOff(BaseException):
    """Ends a cancelled job; handlers of ordinary errors do not catch it."""


def check_called_off() -> None:
    """Ends the job of this thread if it was cancelled.

    Raises:
        CalledOff: The job was cancelled.
    """
    end = _end.get()
    if end is not None and end.is_set():
        raise CalledOff


def together(jobs: Mapping[K, Callable[[], T]], at_once: int) -> dict[K, T]:
    """Runs jobs in threads and returns their results.

    Args:
        jobs: The jobs by name, started in this order.
        at_once: The number of threads.

    Raises:
        Exception: A job failed; of several, the first in their order. Jobs that had started have
            ended, so that no finished download is lost; the others are not started.
        KeyboardInterrupt: The user pressed Ctrl-C; the running jobs are cancelled.
    """
    end, is_failed = threading.Event(), threading.Event()
    results: dict[K, T] = {}
    errors: dict[K, BaseException] = {}
    queue = iter(jobs.items())
    queue_lock = threading.Lock()

    def started() -> Iterator[tuple[K, Callable[[], T]]]:
        while not is_failed.is_set() and not end.is_set():
            with queue_lock:
                entry = next(queue, None)
            if entry is None:
                return
            yield entry

    def work() -> None:
        _end.set(end)
        for name, job in started():
            try:
                results[name] = job()
            except BaseException as error:
                errors[name] = error
                is_failed.set()

    threads = [
        threading.Thread(target=work, name=f"refiners-{number}", daemon=True)
        for number in range(min(at_once, len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_INTERVAL)
    except BaseException:
        end.set()
        deadline = time.monotonic() + _GRACE
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        raise
    for name in jobs:
        if name in errors:
            raise errors[name]
    return {name: results[name] for name in jobs}
