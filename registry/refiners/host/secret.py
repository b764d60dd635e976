"""Removes secrets from messages: tokens, passwords in addresses, signed links."""

from __future__ import annotations

import re
from typing import Final

_SECRETS: Final = (
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@?#'\"]*@", re.IGNORECASE), r"\1***@"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"]*\?)[^\s'\"]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s'\"]+", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{6,}"), "hf_***"),
)
"""Credentials in an address, the query of an address, an authorisation, a token for the Hub."""


def hidden(text: str) -> str:
    """Replaces each secret in a text with three asterisks.

    Example:
        >>> hidden("https://me:word@proxy.example/a?sig=1")
        'https://***@proxy.example/a?***'
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text
