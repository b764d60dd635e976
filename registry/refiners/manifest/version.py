"""Versions and what they are compared with (PEP 440), as strangers write them.

packaging counts on short texts: it raises errors of Python's own for thousands of digits. Every
version and every specifier that comes from a manifest, a catalog or a rule is parsed here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

_LONGEST: Final = 200
"""The characters of a version or of specifiers."""


@lru_cache(maxsize=4096)
def version_of(text: str) -> Version | None:
    """Returns a version that can be compared; None for what PEP 440 does not know."""
    from packaging.version import Version

    try:
        return Version(text) if len(text) <= _LONGEST and text.isascii() else None
    except ValueError:  # InvalidVersion is one
        return None


def is_same(text: str, other: str) -> bool:
    """Whether two spellings, such as `1.0` and `1.0.0`, are one version."""
    return text == other or ((found := version_of(text)) is not None and found == version_of(other))


def is_newer(text: str, other: str) -> bool:
    """Whether a version follows another; not if one of them cannot be compared."""
    version, before = version_of(text), version_of(other)
    return version is not None and before is not None and version > before


def specifiers(text: str) -> SpecifierSet:
    """Returns what a text such as `>=1.0,<2` asks for.

    Raises:
        ValueError: It is not a version specifier.
    """
    from packaging.specifiers import SpecifierSet

    if len(text) > _LONGEST or not text.isascii():
        raise ValueError(f"{text[:40]!r}... is not a version specifier")
    return SpecifierSet(text)  # whose InvalidSpecifier is a ValueError


def is_within(version: str, wanted: str) -> bool | None:
    """Whether a version is one of those asked for; None if it cannot be compared."""
    return None if (found := version_of(version)) is None else specifiers(wanted).contains(
        found, prereleases=True
    )  # fmt: skip


def is_development(text: str) -> bool:
    """Whether a version is one that may be replaced, such as `1.0.dev0`."""
    return (found := version_of(text)) is not None and found.is_devrelease
