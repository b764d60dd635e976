"""Parses and compares untrusted versions and version specifiers (PEP 440).

packaging expects short texts: for thousands of digits it passes on errors of Python itself. Every
version and specifier in a manifest, a catalog or a rule is parsed here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

_LONGEST: Final = 200
"""The maximum length of a version or a specifier, in characters."""


@lru_cache(maxsize=4096)
def version_of(text: str) -> Version | None:
    """Returns a version that can be compared; None if the text is not a PEP 440 version."""
    from packaging.version import Version

    try:
        return Version(text) if len(text) <= _LONGEST and text.isascii() else None
    except ValueError:  # InvalidVersion is a ValueError
        return None


def is_same(text: str, other: str) -> bool:
    """Whether two spellings, such as `1.0` and `1.0.0`, are one version."""
    if text == other:  # saves importing packaging
        return True
    version = version_of(text)
    return version is not None and version == version_of(other)


def is_newer(text: str, other: str) -> bool:
    """Whether a version is newer than another; False if either cannot be compared."""
    version, before = version_of(text), version_of(other)
    return version is not None and before is not None and version > before


def specifiers(text: str) -> SpecifierSet:
    """Parses version specifiers such as `>=1.0,<2`.

    Raises:
        ValueError: The text is not a version specifier.
    """
    from packaging.specifiers import SpecifierSet

    if len(text) > _LONGEST or not text.isascii():
        raise ValueError(f"{text[:40]!r}... is not a version specifier")
    return SpecifierSet(text)  # whose InvalidSpecifier is a ValueError


def is_within(version: str, wanted: str) -> bool | None:
    """Whether a version satisfies specifiers; None if the version cannot be compared."""
    parsed = version_of(version)
    return None if parsed is None else specifiers(wanted).contains(parsed, prereleases=True)


def is_development(text: str) -> bool:
    """Whether a version is a development version, such as `1.0.dev0`, which may be replaced."""
    version = version_of(text)
    return version is not None and version.is_devrelease
