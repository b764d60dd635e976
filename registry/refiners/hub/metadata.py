"""Compares the announcement of a file, which precedes its bytes, with the pins of the file."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from refiners.errors import IntegrityError
from refiners.manifest.schema import UNKNOWN, WeightsFile


class Announced(NamedTuple):
    """The facts that a Hub announces about a file before it sends the bytes."""

    commit: str
    etag: str
    size: int | None

    @property
    def has_sha256(self) -> bool:
        """Whether the etag is a sha256, as of large files; that of small files is git's hash."""
        return re.fullmatch(r"[0-9a-f]{64}", self.etag) is not None


ALL_FILES: Final = "*"
"""The file of a `WeightsFile` that represents the list of a repository."""


SEARCH: Final = "?"
"""The file of a `WeightsFile` that represents a search on the Hub."""


def described(file: WeightsFile) -> str:
    """Returns the name of a file, of the list of a repository or of a search, for messages."""
    if file.file == SEARCH:
        return f"the results for {file.address}"
    return f"the list of files of {file.address}" if file.file == ALL_FILES else str(file)


class Entry(msgspec.Struct, frozen=True):
    """One file in the list of a repository."""

    size: int
    git: str
    """Git's hash of the file; for a large file, of the pointer that git stores in its place."""
    sha256: str = UNKNOWN
    """The sha256 of a large file; unknown for small files, which have git's hash alone."""


class Contents(msgspec.Struct, frozen=True):
    """The files of a repository at one commit, as the Hub lists them."""

    commit: str
    license: str
    files: dict[str, Entry]


def agreed(file: WeightsFile, announced: Announced, endpoint: str, dist: str | None) -> str:
    """Compares an announcement with every pin, and returns the commit to download.

    Raises:
        IntegrityError: The announcement contradicts a pin, or names no hash or commit.
    """
    pins: list[tuple[str, object, object]] = []
    if file.revision != UNKNOWN:
        pins.append(("commit", file.revision, announced.commit))
    if file.sha256 != UNKNOWN and not _is_git_hash(announced.etag):
        pins.append(("sha256", file.sha256, announced.etag))
    if file.size is not None and announced.size is not None:
        pins.append(("size", file.size, announced.size))
    for key, pin, value in pins:
        if pin != value:
            raise IntegrityError(
                f"{endpoint} announces {key} {value or 'nothing'} for {file}, which is pinned to "
                f"{pin}. Nothing was downloaded.",
                hint=f"The file has changed, or the mirror is out of step: upgrade {dist}."
                if dist
                else "The file has changed, or the mirror is out of step with the Hub.",
                dist=dist,
            )
    if not _is_git_hash(announced.commit) or not (
        announced.has_sha256 or _is_git_hash(announced.etag)
    ):
        raise IntegrityError(
            f"{endpoint} does not announce the commit and hash of {file}, so the file cannot be "
            "verified.",
            hint="Unset HF_ENDPOINT, or use a mirror that forwards the Hub's headers.",
            dist=dist,
        )
    return announced.commit


def branch_of(file: WeightsFile) -> str:
    """Returns the revision to request: the pinned commit, or the main branch."""
    return "main" if file.revision == UNKNOWN else file.revision


def check_commit(file: WeightsFile, commit: str, endpoint: str) -> None:
    """Checks that a Hub answered with the requested commit.

    Raises:
        IntegrityError: The Hub answered with another commit, or with none.
    """
    if not _is_git_hash(commit) or (_is_git_hash(file.revision) and commit != file.revision):
        raise IntegrityError(
            f"{endpoint} answers with commit {commit or 'nothing'} for {described(file)}. "
            "Nothing was downloaded.",
            hint="The mirror is out of step with the Hub: unset HF_ENDPOINT, or try another.",
        )


def _is_git_hash(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", text) is not None
