"""What a Hub says about a file before a byte of it is downloaded, compared with what is pinned."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from refiners.errors import IntegrityError
from refiners.manifest.schema import UNKNOWN, WeightsFile


class Announced(NamedTuple):
    """What a Hub says about a file before it sends it."""

    commit: str
    etag: str
    size: int | None

    @property
    def has_sha256(self) -> bool:
        """Whether it is named by sha256, as large files are; small ones have git's hash."""
        return re.fullmatch(r"[0-9a-f]{64}", self.etag) is not None


class Entry(msgspec.Struct, frozen=True):
    """One file in the list of a repository."""

    size: int
    git: str
    """Git's name for it; of a large file, for the pointer that git keeps in its place."""
    sha256: str = UNKNOWN
    """Of a large file; small ones have git's name only."""


class Contents(msgspec.Struct, frozen=True):
    """What a repository holds at one commit, as the Hub lists it."""

    commit: str
    license: str
    files: dict[str, Entry]


def agreed(file: WeightsFile, announced: Announced, endpoint: str, dist: str | None) -> str:
    """Returns the commit to download, after comparing the announcement with every pin.

    Raises:
        IntegrityError: It contradicts a pin, or cannot be verified.
    """
    pins: list[tuple[str, object, object]] = []
    if file.revision != UNKNOWN:
        pins.append(("commit", file.revision, announced.commit))
    if file.sha256 != UNKNOWN and not _is_git_hash(announced.etag):
        pins.append(("sha256", file.sha256, announced.etag))
    if file.size is not None and announced.size is not None:
        pins.append(("size", file.size, announced.size))
    for what, wanted, said in pins:
        if wanted != said:
            raise IntegrityError(
                f"{endpoint} announces {what} {said or 'nothing'} for {file}, pinned is {wanted}. "
                "Nothing was downloaded.",
                hint=f"The file was changed, or this is no faithful mirror: upgrade {dist}."
                if dist
                else "The file was changed, or this is no faithful mirror of the Hub.",
                dist=dist,
            )
    if not _is_git_hash(announced.commit) or not (
        announced.has_sha256 or _is_git_hash(announced.etag)
    ):
        raise IntegrityError(
            f"{endpoint} names neither commit nor hash of {file}, so it cannot be verified.",
            hint="Unset HF_ENDPOINT, or use a mirror that passes the Hub's headers on.",
            dist=dist,
        )
    return announced.commit


def branch_of(file: WeightsFile) -> str:
    """Returns the revision to ask a Hub for: the pinned commit, else the main branch."""
    return "main" if file.revision == UNKNOWN else file.revision


def check_commit(file: WeightsFile, commit: str, endpoint: str) -> None:
    """Makes sure that a Hub spoke of the commit that it was asked for.

    Raises:
        IntegrityError: It spoke of another, or of none.
    """
    if not _is_git_hash(commit) or (_is_git_hash(file.revision) and commit != file.revision):
        raise IntegrityError(
            f"{endpoint} answers with commit {commit or 'nothing'} for {file}. "
            "Nothing was downloaded.",
            hint="This is no faithful mirror of the Hub: unset HF_ENDPOINT, or use another.",
        )


def _is_git_hash(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None
