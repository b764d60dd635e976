"""Turns what the Hub's client raises into errors that say what to do."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from refiners.errors import (
    AccessError,
    IntegrityError,
    MissingError,
    NetworkError,
    Notice,
    OfflineError,
    RefinersError,
    RevisionError,
    UnsupportedError,
)
from refiners.host.machine import machine_fault
from refiners.host.secret import hidden
from refiners.hub.local_settings import setting_fault
from refiners.hub.wait_notice import announced
from refiners.manifest.schema import UNKNOWN, WeightsFile

_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)
"""Seconds to wait before each new attempt; the client itself does not retry a broken transfer."""
T = TypeVar("T")

_HUB: Final = "https://huggingface.co"
_PASSING: Final = (408, 425, 429)
"""Answers after which the same request may succeed; so it may after all from 500 on."""
_EXPIRED: Final = 403
"""What a content network answers to a link that is too old; a new request gets a new link."""


def patiently(action: Callable[[], T], what: str = "") -> T:
    """Runs an action again, after a pause, while what goes wrong is likely to pass.

    A wait of more than a second is announced.

    Args:
        action: Sends a request.
        what: The words for it in announcements; by default it waits for an answer of the Hub.
    """
    from huggingface_hub import constants

    endpoint = hidden(constants.ENDPOINT)
    with announced(what or f"waiting for an answer of {endpoint}"):
        for pause in _PAUSES:
            try:
                return action()
            except Exception as error:
                if not is_passing(error):
                    raise
                reason = hidden(str(error).partition("\n")[0])
                warnings.warn(
                    f"{type(error).__name__}: {reason}; asking again in {pause:g} s.",
                    Notice,
                    stacklevel=2,
                )
                time.sleep(pause)
        return action()


def is_passing(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    import httpx2
    from huggingface_hub import constants

    error = _bare(error)
    if (status := _status_of(error)) is not None:
        is_expired = status == _EXPIRED and _is_elsewhere(error, constants.ENDPOINT)
        return status in _PASSING or status >= 500 or is_expired
    if setting_fault(error, constants.ENDPOINT) is not None:
        return False
    if _is_of_xet(error):
        return machine_fault(error, "") is None
    return isinstance(error, httpx2.TransportError) or _is_cut_off(error)


def is_of_request(error: Exception) -> bool:
    """Whether a request failed, rather than the reading of what came."""
    import httpx2
    from huggingface_hub import errors as hub

    kinds = (httpx2.HTTPError, httpx2.InvalidURL, hub.HFValidationError, OSError, MemoryError,
             ImportError, RefinersError)  # fmt: skip
    return isinstance(_bare(error), kinds)


def explained(
    error: Exception, file: WeightsFile, endpoint: str, dist: str | None
) -> RefinersError:
    """Returns our error for anything that happened while a file was fetched, without secrets.

    Args:
        error: What was raised; one of ours is returned as it is.
        file: What was to be fetched.
        endpoint: From where.
        dist: The distribution that names the file.
    """
    found = _explained(error, file, endpoint, dist)
    if found is not error:
        found.message, found.hint = hidden(found.message), hidden(found.hint)
        found.args = (found.message,)
    return found


def shown_cause(error: Exception) -> Exception | None:
    """Returns an exception to be attached as a cause; None if it would show a secret."""
    return error if hidden(str(error)) == str(error) else None


def _explained(
    error: Exception, file: WeightsFile, endpoint: str, dist: str | None
) -> RefinersError:
    import httpx2
    from huggingface_hub import errors as hub

    page = f"{endpoint}/{file.address}"
    newer = f"; a newer {dist} may name another" if dist else ""
    error = _bare(error)
    if isinstance(error, RefinersError):
        return error
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
    if isinstance(error, hub.HFValidationError):
        return UnsupportedError(
            f"{file.address!r} is not a name of a repository on the Hub: {error}",
            hint=f"Ask the author of {dist} for the right one." if dist else "Look for a slip.",
            dist=dist,
        )
    if (fault := setting_fault(error, endpoint)) is not None:
        return fault
    if (status := _status_of(error)) is not None:
        return _refused(status, file, _origin(error, endpoint), endpoint, dist)
    size = f"{file.size} bytes" if file.size else "an unknown number of bytes"
    if (fault := machine_fault(error, f"fetching {file}", needs=size)) is not None:
        return fault
    if _is_of_xet(error):
        return NetworkError(
            f"the Xet storage behind {endpoint} did not send {file}: {error}.",
            hint="Set HF_HUB_DISABLE_XET=1 to fetch without it, or try again later.",
            dist=dist,
        )
    if isinstance(error, httpx2.TransportError):
        return NetworkError(
            f"{endpoint} broke off or does not answer ({type(error).__name__}: {error}) "
            f"while {file} was fetched.",
            hint=f"Check the connection{'' if endpoint == _HUB else ' and HF_ENDPOINT'} and try "
            "again; what is in the cache works with offline=True.",
            dist=dist,
        )
    if _is_cut_off(error):
        return IntegrityError(
            f"{endpoint} sent {file} with another size than it announced.",
            hint="Nothing of it was loaded. Try again, and without a mirror.",
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


def _refused(
    status: int, file: WeightsFile, origin: str, endpoint: str, dist: str | None
) -> RefinersError:
    if status in (401, 403) and origin == endpoint:
        return AccessError(
            f"{endpoint} refuses {file} without a valid token (HTTP {status}).",
            hint="Run hf auth login. Tokens are sent to https endpoints only.",
            dist=dist,
        )
    if status == 429:
        return NetworkError(
            f"{origin} had too many requests from here (HTTP 429) to send {file}.",
            hint="Wait a few minutes, or run hf auth login for a higher limit.",
            dist=dist,
        )
    return NetworkError(
        f"{origin} answered HTTP {status} for {file}.",
        hint="Try again later; what is in the cache works with offline=True.",
        dist=dist,
    )


def _bare(error: Exception) -> Exception:
    """Returns what happened, which the client hides behind "check your connection"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error.__cause__, Exception) and (
        isinstance(error, LocalEntryNotFoundError) or type(error) is ValueError
    ):
        error = error.__cause__
    return error


def _status_of(error: BaseException) -> int | None:
    """Returns the status of the answer that was an error, from the Hub or from where it sent us."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _origin(error: BaseException, endpoint: str) -> str:
    """Returns the address of whoever answered: the Hub, or the network that holds its files."""
    try:
        address = urlsplit(str(error.response.url))  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, RuntimeError, ValueError):  # an answer that knows no request
        return endpoint
    origin = f"{address.scheme}://{address.netloc}"
    return endpoint if not address.netloc or endpoint.startswith(origin) else origin


def _is_elsewhere(error: BaseException, endpoint: str) -> bool:
    return _origin(error, endpoint) != endpoint


def _is_of_xet(error: BaseException) -> bool:
    # hf_xet raises plain RuntimeErrors; only where they come from tells them from others
    from huggingface_hub.errors import XetDownloadError

    if isinstance(error, XetDownloadError) or type(error).__module__.startswith("hf_xet"):
        return True
    frame = error.__traceback__
    while isinstance(error, RuntimeError) and frame is not None:
        if frame.tb_frame.f_code.co_name == "xet_get":
            return True
        frame = frame.tb_next
    return False


def _is_cut_off(error: BaseException) -> bool:
    # the client's only check, and a plain OSError: nothing but its words tells it from others
    return type(error) is OSError and "Consistency check failed" in str(error)
