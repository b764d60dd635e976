"""Stops a download that exceeds its size, or that was cancelled.

The client has no limit: it receives until the server closes the connection. It updates its progress
bar before it writes each piece, so the bar can enforce a limit.
"""

from __future__ import annotations

from typing import Any

from refiners.errors import IntegrityError, PolicyError, RefinersError
from refiners.host.parallel import check_called_off
from refiners.manifest.schema import WeightsFile


def metered(bar: type[Any], size: int | None, error: RefinersError) -> type[Any]:
    """Returns a class of progress bars that stop the download they show.

    Args:
        bar: The class of bars that the client uses otherwise.
        size: The most bytes of the download; None for no limit.
        error: The error to raise beyond that.
    """

    class Metered(bar):
        """A bar that raises an error beyond its limit."""

        monitor_interval = 0  # each class of bars would start a thread that never ends

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # hf_xet deduplicates chunks and counts bytes before it receives them
            self._is_unlimited = "xet" in (kwargs.get("name") or "")
            self._received = 0
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> Any:
            if not self._is_unlimited:
                check_called_off()
                self._received += int(n or 0)  # negative when the client starts again
                if size is not None and self._received > size:
                    raise error
            return super().update(n)

    return Metered


def limit_of(
    file: WeightsFile, announced: int | None, largest: int | None, endpoint: str, dist: str | None
) -> tuple[int | None, RefinersError]:
    """Returns the most bytes of a download, and the error for more.

    Args:
        file: The file, with its pinned size.
        announced: The size that the Hub announces.
        largest: The largest file that the policies allow.
        endpoint: The Hub, for messages.
        dist: The distribution that names the file, for messages.
    """
    sizes = [size for size in (file.size, announced) if size]
    due = min(sizes, default=None)
    if largest is not None and (due is None or largest < due):
        return largest, too_large(
            file, f"more than {largest}", largest, "The download was stopped.", dist
        )
    return due, IntegrityError(
        f"{endpoint} sends more than the {due} bytes of {file}.",
        hint="Nothing was loaded. Try again later, and without a mirror.",
        dist=dist,
    )


def too_large(
    file: WeightsFile, size: int | str, largest: int, outcome: str, dist: str | None
) -> PolicyError:
    """Returns the error for a file that is larger than the policies allow."""
    return PolicyError(
        f"{file} has {size} bytes, and a policy allows {largest}. {outcome}",
        hint="See files.max-size in the policy that REFINERS_POLICY names, or in your own.",
        dist=dist,
    )
