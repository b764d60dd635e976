"""Asks the package index who published a file (PEP 740)."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import quote

from refiners.errors import IntegrityError, NetworkError, RefinersError, SettingError
from refiners.host.secret import hidden
from refiners.hub.errors import patiently, shown_cause
from refiners.hub.request import get

VARIABLE: Final = "REFINERS_INDEX"
_INDEX: Final = "https://pypi.org"
_LARGEST: Final = 2_000_000
"""The most bytes of a provenance object."""
_TYPE: Final = {"Accept": "application/vnd.pypi.integrity.v1+json"}


def read_provenance(dist: str, version: str, file: str) -> bytes | None:
    """Returns the provenance object of a published file; None if the index has none.

    Args:
        dist: The distribution.
        version: Its version.
        file: The name of the wheel.

    Raises:
        SettingError: REFINERS_INDEX is not the address of an index.
        NetworkError: The index does not answer.
        IntegrityError: The answer is too long.
    """
    index = os.environ.get(VARIABLE, "") or _INDEX
    if not index.startswith(("https://", "http://")):
        raise SettingError(
            f"{VARIABLE} is {index!r}, which is not the address of a package index.",
            hint=f"Unset it, or write the whole address: {VARIABLE}={_INDEX}.",
        )
    place = "/".join(quote(part, safe="") for part in (dist, version, file))
    url = f"{index.rstrip('/')}/integrity/{place}/provenance"
    address = hidden(index)
    too_long = IntegrityError(
        f"{address} sends more than {_LARGEST} bytes as the provenance of {file}.",
        hint="Nothing was recorded. Try again later, and without a mirror.",
    )

    def ask() -> bytes:
        with get(url, False, _TYPE) as answer:  # the index must not get the token of the Hub
            return answer.read(_LARGEST, too_long)

    try:
        return patiently(ask, f"waiting for {address}")
    except RefinersError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 404:
            return None
        reason = hidden(str(error).partition("\n")[0]) or type(error).__name__
        raise NetworkError(
            f"{address} did not send the provenance of {file}: {reason}.",
            hint="Try again later, name a file with --provenance, or add --offline.",
        ) from shown_cause(error)
