"""Recognises requests that fail because of this machine's settings, not because of the Hub."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from refiners.errors import SettingError

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_ENDPOINT_HINT = (
    "Unset HF_ENDPOINT, or write the whole address: HF_ENDPOINT=https://huggingface.co."
)


def setting_fault(error: BaseException, endpoint: str) -> SettingError | None:
    """Returns an error that names the setting at fault; None if no setting is at fault.

    Args:
        error: The exception that the client raised.
        endpoint: The address of the Hub.
    """
    import httpx2

    if not isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | OSError | ValueError |
                      ImportError):  # fmt: skip
        return None
    if getattr(error, "response", None) is not None and not _wants_proxy_password(error):
        return None
    return (
        _endpoint_fault(error, endpoint)
        or _token_fault(error)
        or _certificate_fault(error, endpoint)
        or _proxy_fault(error, endpoint)
    )


def client_constants() -> Any:
    """Returns huggingface_hub's module of constants, which reads its variables at import.

    Raises:
        SettingError: A variable has a value that huggingface_hub cannot read.
    """
    try:
        from huggingface_hub import constants
    except ValueError as error:
        names = sorted(name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_")))
        raise SettingError(
            f"huggingface_hub cannot read its settings: {error}.",
            hint=f"Check {', '.join(names) or 'its variables'}.",
        ) from error
    return constants


def data_folder() -> Path:
    """Returns the folder beside the cache of huggingface_hub in which this package keeps files.

    Raises:
        SettingError: huggingface_hub cannot read its settings.
    """
    return Path(client_constants().HF_ASSETS_CACHE) / "refiners"


def proxy_for(endpoint: str) -> tuple[str, str] | None:
    """Returns the variable and the address of the proxy for requests; None without a proxy."""
    address = urlsplit(endpoint)
    if not address.hostname or proxy_bypass(address.hostname):
        return None
    proxies = getproxies()
    for scheme in (address.scheme, "all"):
        if proxy := proxies.get(scheme):
            name = f"{scheme}_proxy"
            return (name if name in os.environ else name.upper()), proxy
    return None


def _endpoint_fault(error: BaseException, endpoint: str) -> SettingError | None:
    import httpx2

    try:
        address = urlsplit(endpoint)
        is_whole = address.scheme in ("http", "https") and bool(address.hostname)
        is_whole = is_whole and (address.port is None or address.port > 0)
    except ValueError:
        is_whole = False
    if is_whole and not isinstance(error, httpx2.InvalidURL):
        return None
    return SettingError(f"{endpoint!r} is not the address of a Hub.", hint=_ENDPOINT_HINT)


def _token_fault(error: BaseException) -> SettingError | None:
    import httpx2
    from huggingface_hub import get_token

    if not isinstance(error, httpx2.LocalProtocolError | UnicodeEncodeError):
        return None
    token = get_token() or ""
    if token.isascii() and token.isprintable():
        return None
    return SettingError(
        "the token for the Hub holds characters that tokens do not have.",
        hint="Set HF_TOKEN again, or run hf auth login.",
    )


def _certificate_fault(error: BaseException, endpoint: str) -> SettingError | None:
    import httpx2

    if isinstance(error, httpx2.HTTPError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return SettingError(
            f"this machine does not trust the certificate of {endpoint}: {error}.",
            hint="Set SSL_CERT_FILE to the certificates of your network (PEM), or correct this "
            "machine's clock.",
        )
    if isinstance(error, httpx2.HTTPError) or not isinstance(error, OSError):
        return None
    for name, path in _certificate_paths():
        exists = path.is_file() if name == "SSL_CERT_FILE" else path.is_dir()
        is_readable = exists and os.access(path, os.R_OK)
        if isinstance(error, ssl.SSLError) or not is_readable:
            problem = "holds no certificates" if is_readable else "cannot be read"
            return SettingError(
                f"{name} is {str(path)!r}, which {problem}.",
                hint=f"Unset {name}, or set it to a PEM file.",
            )
    return None


def _certificate_paths() -> Iterator[tuple[str, Path]]:
    for name in _CERTIFICATES:
        if value := os.environ.get(name):
            yield name, Path(value)


def _wants_proxy_password(error: BaseException) -> bool:
    return getattr(getattr(error, "response", None), "status_code", None) == 407


def _proxy_fault(error: BaseException, endpoint: str) -> SettingError | None:
    import httpx2

    is_refused = isinstance(error, httpx2.ProxyError | httpx2.ConnectError | httpx2.ConnectTimeout)
    is_unusable = isinstance(error, ValueError | ImportError) and "proxy" in str(error).lower()
    proxy = proxy_for(endpoint)
    if proxy is None or not (is_refused or is_unusable or _wants_proxy_password(error)):
        return None
    name, address = proxy
    return SettingError(
        f"the proxy {address}, set by {name}, refuses requests: {error}.",
        hint=f"Correct or unset {name}; NO_PROXY lists hosts that need no proxy.",
    )
