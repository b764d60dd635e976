"""Turns what the Hub's client raises into errors that say what to do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from refiners.errors import (
    AccessError,
    CacheError,
    IntegrityError,
    MissingError,
    NetworkError,
    OfflineError,
    RefinersError,
    RevisionError,
)
from refiners.manifest import UNKNOWN, WeightsFile

_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)
"""Seconds to wait before each new attempt; the client itself does not retry a broken transfer."""
T = TypeVar("T")

_PASSING = {408, 429, 500, 502, 503, 504}


def patiently(action: Callable[[], T]) -> T:
    """Runs an action again, after a pause, while what goes wrong is likely to pass."""
    for pause in _PAUSES:
        try:
            return action()
        except Exception as error:
            if not is_passing(error):
                raise
            time.sleep(pause)
    return action()


def is_passing(error: BaseException) -> bool:
    """Whether the same request may well succeed in a moment."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _PASSING
    return isinstance(error, httpx2.TransportError) or _is_cut_off(error)


def explained(
    error: Exception, file: WeightsFile, endpoint: str, dist: str | None
) -> RefinersError:
    """Returns our error for anything that happened while a file was fetched.

    Args:
        error: What was raised; one of ours is returned as it is.
        file: What was to be fetched.
        endpoint: From where.
        dist: The distribution that names the file.
    """
    import httpx2
    from huggingface_hub import errors as hub

    page = f"{endpoint}/{file.address}"
    newer = f"; a newer {dist} may name another" if dist else ""
    if isinstance(error, RefinersError):
        return error
    if isinstance(error.__cause__, Exception) and (
        isinstance(error, hub.LocalEntryNotFoundError) or type(error) is ValueError
    ):
        # "check your connection" and "force download failed" hide what happened, for instance a
        # disabled repository
        return explained(error.__cause__, file, endpoint, dist)
    if isinstance(error, hub.GatedRepoError):
        return AccessError(
            f"{file.address} is gated: its licence is to be accepted first.",
            hint=f"Accept it on {page}, then run hf auth login.",
            dist=dist,
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return RevisionError(
            f"{file.address} has no revision {file.revision}.",
            hint=f"See {page}/commits/main{newer}.",
            dist=dist,
        )
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return MissingError(
            f"{file.address} has no file {file.file} at {file.revision}.",
            hint=f"See {page}/tree/main{newer}.",
            dist=dist,
        )
    if isinstance(error, hub.RepositoryNotFoundError):
        return MissingError(
            f"{file.address} does not exist on {endpoint}, or is private.",
            hint="If it is private, run hf auth login. "
            + (f"If it was deleted, upgrade {dist}." if dist else "Else look for a misspelling."),
            dist=dist,
        )
    if isinstance(error, hub.DisabledRepoError):
        return MissingError(f"{file.address} was disabled on {endpoint}.", hint=page, dist=dist)
    if isinstance(error, hub.OfflineModeIsEnabled):
        return OfflineError(
            f"{file} is to be fetched, but HF_HUB_OFFLINE was set when Python started.",
            hint="Unset HF_HUB_OFFLINE and start again.",
            dist=dist,
        )
    if isinstance(error, hub.HfHubHTTPError):
        return _refused(error.response.status_code, file, endpoint, dist)
    if isinstance(error, httpx2.TransportError):
        return NetworkError(
            f"{endpoint} broke off or does not answer ({type(error).__name__}: {error}) "
            f"while {file} was fetched.",
            hint="Check the connection and try again; what is in the cache works with "
            "offline=True, or REFINERS_OFFLINE=1.",
            dist=dist,
        )
    if _is_cut_off(error):
        return IntegrityError(
            f"{endpoint} sent {file} with another size than it announced.",
            hint="Nothing of it was loaded. Try again, and without a mirror.",
            dist=dist,
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CacheError(
            f"the disk is full; {file} needs {file.size or 'an unknown number of'} bytes.",
            hint="Make room (hf cache ls, hf cache rm), or set HF_HOME to a larger disk.",
            dist=dist,
        )
    if isinstance(error, PermissionError) or (
        isinstance(error, OSError) and error.errno == errno.EROFS
    ):
        return CacheError(
            f"the cache cannot be written: {error}.",
            hint="Mend its permissions, or set HF_HOME to a folder of yours.",
            dist=dist,
        )
    return NetworkError(
        f"{file} could not be fetched from {endpoint}: {type(error).__name__}: {error}.",
        hint="Check HF_ENDPOINT and the connection, then try again.",
        dist=dist,
    )


def unavailable(
    file: WeightsFile, cached: Path | None, cache: Path, dist: str | None
) -> RefinersError:
    """Returns the error for a file that only the Hub has, when going online is forbidden."""
    if cached and file.sha256 != UNKNOWN:
        return IntegrityError(
            f"{cached} does not have the pinned sha256 {file.sha256}.",
            hint="Go online to have it fetched again: offline=False.",
            dist=dist,
        )
    open_pin = " Its hash is not published, so a first fetch needs the Hub." if cached else ""
    return OfflineError(
        f"{file} is not in the cache {cache}, and going online was forbidden.{open_pin}",
        hint="Load it once online (offline=False, REFINERS_OFFLINE and HF_HUB_OFFLINE unset).",
        dist=dist,
    )


def _refused(status: int, file: WeightsFile, endpoint: str, dist: str | None) -> RefinersError:
    if status in (401, 403):
        return AccessError(
            f"{endpoint} refuses {file} without a valid token (HTTP {status}).",
            hint="Run hf auth login. Tokens are sent to https endpoints only.",
            dist=dist,
        )
    if status == 429:
        return NetworkError(
            f"{endpoint} had too many requests from here (HTTP 429) to send {file}.",
            hint="Wait a few minutes, or run hf auth login for a higher limit.",
            dist=dist,
        )
    return NetworkError(
        f"{endpoint} answered HTTP {status} for {file}.",
        hint="Try again later; what is in the cache works with offline=True.",
        dist=dist,
    )


def _is_cut_off(error: BaseException) -> bool:
    # the client's only check, and a plain OSError: nothing but its words tells it from others
    return type(error) is OSError and "Consistency check failed" in str(error)
