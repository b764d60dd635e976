"""Runs several waits at once, and ends all of them when the user presses Ctrl-C.

The threads of `concurrent.futures` are waited for before Python ends, however long a download
still takes. These are not, and a job that asks `check_called_off` now and then ends by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Final, TypeVar

K = TypeVar("K")
T = TypeVar("T")

_GLANCE: Final = 0.2
"""Seconds after which the waiting thread looks up; on Windows Ctrl-C is only noticed then."""
_GRACE: Final = 1.0
"""Seconds that jobs which are called off have to tidy up."""

_end: Final[ContextVar[threading.Event | None]] = ContextVar("refiners_end", default=None)


class CalledOff(BaseException):
    """Nobody waits for this job any more; no handler of ordinary errors should catch it."""


def check_called_off() -> None:
    """Ends a job that nobody waits for any more.

    Raises:
        CalledOff: Nobody does.
    """
    end = _end.get()
    if end is not None and end.is_set():
        raise CalledOff


def together(jobs: Mapping[K, Callable[[], T]], at_once: int) -> dict[K, T]:
    """Runs jobs in threads and returns what each came to.

    Args:
        jobs: What to run, by name; begun in this order.
        at_once: The number of threads.

    Raises:
        Exception: That of the first job, in their order, that failed. Those that had begun have
            ended, so that nothing of what they fetched is lost; those that had not are not begun.
        KeyboardInterrupt: At once; what had begun is called off.
    """
    end, is_failed = threading.Event(), threading.Event()
    results: dict[K, T] = {}
    errors: dict[K, BaseException] = {}
    waiting = iter(jobs.items())
    turn = threading.Lock()

    def begun() -> Iterator[tuple[K, Callable[[], T]]]:
        while not is_failed.is_set() and not end.is_set():
            with turn:
                entry = next(waiting, None)
            if entry is None:
                return
            yield entry

    def work() -> None:
        _end.set(end)
        for name, job in begun():
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
                thread.join(_GLANCE)
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
