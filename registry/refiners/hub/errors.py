"""Turns the exceptions of the Hub's client into errors that name the remedy."""

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
from refiners.hub.metadata import described
from refiners.hub.wait_notice import announced
from refiners.manifest.schema import UNKNOWN, WeightsFile

_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)
"""Seconds before each new attempt; the client itself does not retry a broken transfer."""
T = TypeVar("T")

_HUB: Final = "https://huggingface.co"
_TRANSIENT: Final = (408, 425, 429)
"""Statuses after which the same request may succeed, as it may after every status from 500 on."""
_EXPIRED: Final = 403
"""The status of a content network for an expired link; a new request gets a new link."""


def patiently(action: Callable[[], T], wait: str = "") -> T:
    """Runs an action, and repeats it after a pause while its failure is likely to be transient.

    Announces a wait of more than a moment.

    Args:
        action: Sends a request.
        wait: The description of the wait; by default, waiting for the Hub.
    """
    from huggingface_hub import constants

    endpoint = hidden(constants.ENDPOINT)
    with announced(wait or f"waiting for {endpoint}"):
        for pause in _PAUSES:
            try:
                return action()
            except Exception as error:
                if not is_transient(error):
                    raise
                reason = hidden(str(error).partition("\n")[0])
                warnings.warn(
                    f"{type(error).__name__}: {reason}; trying again in {pause:g} s.",
                    Notice,
                    stacklevel=2,
                )
                time.sleep(pause)
        return action()


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    import httpx2
    from huggingface_hub import constants

    error = _bare(error)
    if (status := _status_of(error)) is not None:
        is_expired = status == _EXPIRED and _is_elsewhere(error, constants.ENDPOINT)
        return status in _TRANSIENT or status >= 500 or is_expired
    if setting_fault(error, constants.ENDPOINT) is not None:
        return False
    if _is_of_xet(error):
        return machine_fault(error, "") is None
    return isinstance(error, httpx2.TransportError) or _is_cut_off(error)


def is_of_request(error: Exception) -> bool:
    """Whether a request failed, rather than the reading of its answer."""
    import httpx2
    from huggingface_hub import errors as hub

    kinds = (httpx2.HTTPError, httpx2.InvalidURL, hub.HFValidationError, OSError, MemoryError,
             ImportError, RefinersError)  # fmt: skip
    return isinstance(_bare(error), kinds)


def explained(
    error: Exception, file: WeightsFile, endpoint: str, dist: str | None
) -> RefinersError:
    """Returns the error of ours for an exception during a fetch, without secrets.

    Args:
        error: The exception; an error of ours is returned unchanged.
        file: The file to fetch.
        endpoint: The address of the Hub.
        dist: The distribution that names the file.
    """
    ours = _explained(error, file, endpoint, dist)
    if ours is not error:
        ours.message, ours.hint = hidden(ours.message), hidden(ours.hint)
        ours.args = (ours.message,)
    return ours


def shown_cause(error: Exception) -> Exception | None:
    """Returns an exception to attach as a cause; None if its text holds a secret."""
    return error if hidden(str(error)) == str(error) else None


def _explained(
    error: Exception, file: WeightsFile, endpoint: str, dist: str | None
) -> RefinersError:
    import httpx2
    from huggingface_hub import errors as hub

    name = described(file)
    page = f"{endpoint}/{file.address}"
    newer = f"; a newer {dist} may pin another" if dist else ""
    error = _bare(error)
    if isinstance(error, RefinersError):
        return error
    if isinstance(error, hub.GatedRepoError):
        return AccessError(
            f"{file.address} is gated: accept its licence first.",
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
            + (f"If it was deleted, upgrade {dist}." if dist else "Otherwise check the spelling."),
            dist=dist,
        )
    if isinstance(error, hub.DisabledRepoError):
        return MissingError(f"{file.address} was disabled on {endpoint}.", hint=page, dist=dist)
    if isinstance(error, hub.OfflineModeIsEnabled):
        return OfflineError(
            f"{name} cannot be fetched: HF_HUB_OFFLINE was set when Python started.",
            hint="Unset HF_HUB_OFFLINE and start again.",
            dist=dist,
        )
    if isinstance(error, hub.HFValidationError):
        return UnsupportedError(
            f"{file.address!r} is not the name of a repository on the Hub: {error}",
            hint=f"Ask the author of {dist} for the name." if dist else "Check the spelling.",
            dist=dist,
        )
    if (fault := setting_fault(error, endpoint)) is not None:
        return fault
    if (status := _status_of(error)) is not None:
        return _refused(status, file, _origin(error, endpoint), endpoint, dist)
    size = f"{file.size} bytes" if file.size else "an unknown number of bytes"
    if (fault := machine_fault(error, f"fetching {name}", needs=size)) is not None:
        return fault
    if _is_of_xet(error):
        return NetworkError(
            f"the Xet storage of {endpoint} did not send {name}: {error}.",
            hint="Set HF_HUB_DISABLE_XET=1 to fetch without it, or try again later.",
            dist=dist,
        )
    if isinstance(error, httpx2.TransportError):
        return NetworkError(
            f"{endpoint} did not answer or closed the connection ({type(error).__name__}: {error}) "
            f"while {name} was fetched.",
            hint=f"Check the connection{'' if endpoint == _HUB else ' and HF_ENDPOINT'} and try "
            "again; files in the cache load with offline=True.",
            dist=dist,
        )
    if _is_cut_off(error):
        return IntegrityError(
            f"{endpoint} sent {name} with another size than it announced.",
            hint="Nothing was loaded. Try again, and without a mirror.",
            dist=dist,
        )
    return NetworkError(
        f"{name} could not be fetched from {endpoint}: {type(error).__name__}: {error}.",
        hint="Check HF_ENDPOINT and the connection, then try again.",
        dist=dist,
    )


def unavailable(
    file: WeightsFile, cached: Path | None, cache: Path, dist: str | None
) -> RefinersError:
    """Returns the error for a file that is only on the Hub when going online is forbidden."""
    if cached and file.sha256 != UNKNOWN:
        return IntegrityError(
            f"{cached} does not have the pinned sha256 {file.sha256}.",
            hint="Fetch it again online: offline=False.",
            dist=dist,
        )
    open_pin = " No hash is pinned, so the first fetch needs the Hub." if cached else ""
    return OfflineError(
        f"{described(file)} is not in the cache {cache}, and going online is forbidden.{open_pin}",
        hint="Load it once online (offline=False, REFINERS_OFFLINE and HF_HUB_OFFLINE unset).",
        dist=dist,
    )


def _refused(
    status: int, file: WeightsFile, origin: str, endpoint: str, dist: str | None
) -> RefinersError:
    if status in (401, 403) and origin == endpoint:
        return AccessError(
            f"{endpoint} does not send {described(file)} without a valid token (HTTP {status}).",
            hint="Run hf auth login. Tokens are sent to https endpoints only.",
            dist=dist,
        )
    if status == 429:
        return NetworkError(
            f"{origin} refuses {described(file)}: too many requests from this address (HTTP 429).",
            hint="Wait a few minutes, or run hf auth login for a higher limit.",
            dist=dist,
        )
    return NetworkError(
        f"{origin} answered HTTP {status} for {described(file)}.",
        hint="Try again later; files in the cache load with offline=True.",
        dist=dist,
    )


def _bare(error: Exception) -> Exception:
    """Returns the original exception, which the client wraps in "check your connection"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error.__cause__, Exception) and (
        isinstance(error, LocalEntryNotFoundError) or type(error) is ValueError
    ):
        error = error.__cause__
    return error


def _status_of(error: BaseException) -> int | None:
    """Returns the HTTP status of an error, from the Hub or from a server that it redirects to."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _origin(error: BaseException, endpoint: str) -> str:
    """Returns the address of the server that answered: the Hub, or its content network."""
    try:
        address = urlsplit(str(error.response.url))  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, RuntimeError, ValueError):  # a response without a request
        return endpoint
    origin = f"{address.scheme}://{address.netloc}"
    return endpoint if not address.netloc or endpoint.startswith(origin) else origin


def _is_elsewhere(error: BaseException, endpoint: str) -> bool:
    return _origin(error, endpoint) != endpoint


def _is_of_xet(error: BaseException) -> bool:
    # hf_xet raises plain RuntimeErrors, which only the traceback distinguishes from others
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
    # the client's size check raises a plain OSError, which only its text distinguishes
    return type(error) is OSError and "Consistency check failed" in str(error)
