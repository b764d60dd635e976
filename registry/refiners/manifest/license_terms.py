"""Decides whether a licence forbids commercial use, by its name or by what a manifest declares."""

from __future__ import annotations

import re
from typing import Final

NON_COMMERCIAL: Final = "non-commercial"
"""The terms of a licence that forbids commercial use; policies name the group like this."""
_WORDS: Final = frozenset(
    {"nc", "noncommercial", "research", "insightface", "mrl", "mnpl", "amlr", "academic"}
)
"""The words of names of licences that forbid commercial use: `cc-by-nc-4.0`, `intel-research`."""
_PHRASES: Final = (("non", "commercial"), ("not", "for", "commercial"), ("no", "commercial"))


def terms_of(license: str, commercial: bool | None = None) -> str:
    """Returns `non-commercial` for a licence that forbids commercial use; empty otherwise.

    Args:
        license: An SPDX identifier, a licence of the Hub, or free text.
        commercial: Whether the manifest declares commercial use as permitted; None leaves it to
            the name.

    Example:
        >>> terms_of("cc-by-nc-sa-4.0"), terms_of("openrail++"), terms_of("apache-2.0", False)
        ('non-commercial', '', 'non-commercial')
    """
    if commercial is not None:
        return "" if commercial else NON_COMMERCIAL
    words = re.findall(r"[a-z]+", license.lower())
    phrases = {tuple(words[i : i + n]) for n in (2, 3) for i in range(len(words))}
    is_forbidden = not _WORDS.isdisjoint(words) or not phrases.isdisjoint(_PHRASES)
    return NON_COMMERCIAL if is_forbidden else ""
