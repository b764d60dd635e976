"""Finds names that cannot be fetched everywhere: the Hub or Windows refuses them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from refiners.manifest.schema import WeightsFile

_WORD: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
"""The organisation or the name of a repository, by the rules of the Hub."""
_LONGEST: Final = 255
"""The most bytes of a file name on common file systems."""
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""The names of devices on Windows, with any suffix."""
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\\]')


def unusable(file: WeightsFile) -> Iterator[str]:
    """Yields the reasons why a file cannot be fetched everywhere."""
    if file.scheme == "hf":
        yield from _repository(file.address)
        yield from _path(file.file or "")
    elif file.scheme == "pkg":
        yield from _path(file.package_path[1])


def _repository(name: str) -> Iterator[str]:
    organisation, _, repository = name.partition("/")
    halves = (organisation, repository)
    if (
        not all(map(_WORD.fullmatch, halves))
        or any(pair in name for pair in ("--", ".."))
        or repository.endswith((".git", ".ipynb"))
        or len(name) > 96
    ):
        yield f"the Hub does not allow the repository name {_shown(name)}"


def _path(path: str) -> Iterator[str]:
    for name in path.split("/"):
        if not name or name in (".", "..") or name.lower() == ".git":
            yield f"{_shown(path)} is not a path within a repository"
        elif len(name.encode("utf-8", "surrogatepass")) > _LONGEST:
            yield f"{_shown(name)} is longer than {_LONGEST} bytes, the limit of file systems"
        elif _DEVICES.fullmatch(name.partition(".")[0].rstrip()):
            yield f"{_shown(name)} is the name of a device on Windows"
        elif name.endswith((".", " ")) or name.startswith(" "):
            yield f"{_shown(name)} begins or ends with a blank or a dot, which Windows removes"
        elif _FORBIDDEN.search(name):
            yield f"{_shown(name)} has a character that Windows does not allow in names"
        elif any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
                 for character in name):  # fmt: skip
            yield f"{_shown(name)} has an invisible character"
        elif unicodedata.normalize("NFC", name) != name:
            yield f"{_shown(name)} is not in Unicode NFC, to which some file systems convert names"


def _shown(name: str) -> str:
    text = ascii(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
