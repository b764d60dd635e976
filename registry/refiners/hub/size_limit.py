"""Stops a download that brings more than it may, or that nobody waits for any more.

The client has no limit of its own: it takes what a server sends until the server ends. Its progress
bar is told of each piece before the piece is written, so the bar is where a limit can be kept.
"""

from __future__ import annotations

from typing import Any

from refiners.errors import IntegrityError, PolicyError, RefinersError
from refiners.host.parallel import check_called_off
from refiners.manifest.schema import WeightsFile


def metered(bar: type[Any], size: int | None, error: RefinersError) -> type[Any]:
    """Returns a kind of progress bar that ends the download which it shows.

    Args:
        bar: The kind of bar that the client shows otherwise.
        size: The most that may come, in bytes; None for any number.
        error: What to raise when more comes.
    """

    class Metered(bar):
        """A bar that raises when more bytes come than it allows."""

        monitor_interval = 0  # each kind of bar would start a thread that never ends

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # the Hub's transfer library fetches by content, and counts what it fetches in advance
            self._is_free = "xet" in (kwargs.get("name") or "")
            self._received = 0
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> Any:
            if not self._is_free:
                check_called_off()
                self._received += int(n or 0)  # less than nothing where the client begins again
                if size is not None and self._received > size:
                    raise error
            return super().update(n)

    return Metered


def limit_of(
    file: WeightsFile, announced: int | None, largest: int | None, endpoint: str, dist: str | None
) -> tuple[int | None, RefinersError]:
    """Returns the most bytes that may come for a file, and the error for more.

    Args:
        file: The file, with the size that is pinned.
        announced: The size that the Hub announces.
        largest: The largest file that a policy allows.
        endpoint: The Hub, for messages.
        dist: The distribution that names the file, for messages.
    """
    sizes = [size for size in (file.size, announced) if size]
    due = min(sizes, default=None)
    if largest is not None and (due is None or largest < due):
        return largest, too_large(file, f"more than {largest}", largest, "It was broken off.", dist)
    return due, IntegrityError(
        f"{endpoint} sends more than the {due} bytes that {file} has.",
        hint="Nothing of it was loaded. Try again later, and without a mirror.",
        dist=dist,
    )


def too_large(
    file: WeightsFile, size: int | str, largest: int, outcome: str, dist: str | None
) -> PolicyError:
    """Returns the error for a file that is larger than a policy allows."""
    return PolicyError(
        f"{file} has {size} bytes, a policy allows {largest}. {outcome}",
        hint="See files.max-size in the file that REFINERS_POLICY names, or in your own.",
        dist=dist,
    )
