"""Shortens foreign texts and makes them safe to show."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from refiners.host.text import shown

LINE: Final = 240
"""The most characters of a text in lists."""
_SLUG: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST: Final = 80
"""The most characters of a name in the path of a file."""


def clean(value: Any) -> Any:
    """Replaces characters that hide or reorder words in a value of a template by escapes."""
    if type(value) is str:  # markup of our own is a subclass
        return value if value.isascii() and value.isprintable() else shown(value)
    return value


def clipped(text: str, longest: int = LINE) -> str:
    """Returns a text of one line, cut at a number of characters."""
    if len(text) <= longest and text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # the common case
    flat = " ".join(shown(text[: longest * 8]).split())
    return flat if len(flat) <= longest else f"{flat[: longest - 1].rstrip()}…"


def slug(text: str) -> str:
    """Returns a part of a path for any text; different texts have different parts."""
    if len(text) <= _LONGEST and _SLUG.fullmatch(text):
        return text
    words = "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:40].strip("-")
    return f"{words}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:12]}".lstrip("-")


def size_of(count: int | None) -> str:
    """Returns a number of bytes with a unit; empty for an unknown one."""
    if count is None:
        return ""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"
