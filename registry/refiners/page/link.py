"""Links to foreign pages, only where an address is of a form that is known to be harmless."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from refiners.errors import OptionError
from refiners.host.text import is_plain
from refiners.manifest.pattern import REPOSITORY, UNKNOWN
from refiners.manifest.schema import WeightsFile

_HTTPS: Final = re.compile(
    r"https://[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[0-9]{1,5})?"
    r"([/?#][\w.~:/?#\[\]@!$&'()*+,;=%-]*)?",
    re.ASCII,
)
"""An address with a host of plain letters, without a user name or a password."""
_ARXIV: Final = re.compile(r"arxiv:([0-9]{4}\.[0-9]{4,5}(?:v[0-9]{1,2})?)", re.IGNORECASE)
_BASE: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", re.ASCII)
_LONGEST: Final = 500
"""The most characters of an address that is linked."""


def web_link(address: Any) -> str:
    """Returns an address if it is a plain https address; empty otherwise.

    Example:
        >>> web_link("https://example.org/a"), web_link("javascript:alert(1)")
        ('https://example.org/a', '')
    """
    is_short = isinstance(address, str) and len(address) <= _LONGEST
    return address if is_short and is_plain(address) and _HTTPS.fullmatch(address) else ""


def paper_link(paper: str) -> str:
    """Returns the page of a paper, by its arXiv identifier or address; empty otherwise."""
    match = _ARXIV.fullmatch(paper.strip())
    return f"https://arxiv.org/abs/{match[1]}" if match else web_link(paper)


def file_link(file: WeightsFile) -> str:
    """Returns the page of a file on the Hub, at its pinned commit; empty for other sources."""
    if file.scheme != "hf" or not re.fullmatch(REPOSITORY, file.address):
        return ""
    revision = "main" if file.revision == UNKNOWN else file.revision
    page = f"https://huggingface.co/{file.address}"
    return web_link(f"{page}/blob/{revision}/{quote(file.file)}" if file.file else page)


def base_address(address: str) -> str:
    """Returns the address of a site with a final slash.

    Raises:
        OptionError: The text is not an address.
    """
    if address and not _BASE.fullmatch(address):
        raise OptionError(
            f"{address!r} is not the address of a site.",
            hint="Write it like --base-url https://example.org/catalog/.",
        )
    return f"{address.rstrip('/')}/" if address else ""
