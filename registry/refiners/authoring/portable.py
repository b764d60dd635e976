"""Names that can never be fetched: the Hub refuses them, or Windows cannot hold such files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from refiners.manifest.schema import WeightsFile

_WORD: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
"""Either half of a repository's name, as the Hub lets people choose it."""
_LONGEST: Final = 255
"""Bytes that file systems take for one name."""
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""What Windows takes for devices, whatever the suffix is."""
_FORBIDDEN: Final = re.compile(r'[<>:"|?*\\]')


def unusable(file: WeightsFile) -> Iterator[str]:
    """Yields why a file could not be fetched everywhere."""
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
        yield f"the Hub has no repositories with names like {_shown(name)}"


def _path(path: str) -> Iterator[str]:
    for name in path.split("/"):
        if not name or name in (".", "..") or name.lower() == ".git":
            yield f"{_shown(path)} is not a path within a repository"
        elif len(name.encode("utf-8", "surrogatepass")) > _LONGEST:
            yield f"{_shown(name)} is longer than {_LONGEST} bytes, which file systems do not take"
        elif _DEVICES.fullmatch(name.partition(".")[0].rstrip()):
            yield f"{_shown(name)} is the name of a device on Windows"
        elif name.endswith((".", " ")) or name.startswith(" "):
            yield f"{_shown(name)} begins or ends with a blank or a dot, which Windows drops"
        elif _FORBIDDEN.search(name):
            yield f"{_shown(name)} has a letter that Windows does not take in names"
        elif any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
                 for letter in name):  # fmt: skip
            yield f"{_shown(name)} has a letter that is not visible"
        elif unicodedata.normalize("NFC", name) != name:
            yield f"{_shown(name)} is spelt in parts that some file systems join (not NFC)"


def _shown(name: str) -> str:
    text = ascii(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
