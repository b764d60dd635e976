"""Parses the address of a Hub repository: `hf:organisation/name@revision/path`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from refiners.errors import OptionError
from refiners.manifest.pattern import FILE_NAME, REPOSITORY, UNKNOWN

PREFIX: Final = "hf:"
_REVISION: Final = r"refs/[\w-]+/[\w.-]+|[A-Za-z0-9](?:[\w.-]|%2[Ff])*"
_ADDRESS: Final = re.compile(
    rf"hf:(?P<repository>{REPOSITORY})(@(?P<revision>{_REVISION}))?(/(?P<path>{FILE_NAME}))?"
)
_URL: Final = re.compile(r"(?i:https?://|ftp://|file://|s3://|gs://)(?P<rest>.*)", re.DOTALL)
_PAGE: Final = re.compile(
    rf"(?:huggingface\.co|hf\.co)/(?P<repository>{REPOSITORY})"
    rf"(?:/(?:blob|resolve|tree|raw)/(?P<revision>[^/]+)(?:/(?P<path>{FILE_NAME}))?)?"
)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_UPPER_COMMIT: Final = re.compile(r"[0-9a-fA-F]{40}")


class Address(NamedTuple):
    """The address of a repository, a folder or a file on the Hub."""

    repository: str
    revision: str
    """A commit, a branch or a tag; `unknown` for the main branch."""
    path: str
    """A file, or the folder of a model; empty for the whole repository."""


def parse_address(what: str) -> Address:
    """Splits `hf:organisation/name@revision/path` into its parts.

    A slash in the revision is written `%2F`, except in references such as `refs/pr/1`. A commit
    may have upper-case digits.

    Raises:
        OptionError: The address is malformed.
    """
    match = _ADDRESS.fullmatch(what)
    if match is None:
        raise OptionError(
            f"{what!r} is not the address of a Hub repository.",
            hint="Write hf:organisation/name, hf:organisation/name@commit, or either followed by "
            "/file.safetensors.",
        )
    revision = re.sub("%2f", "/", match["revision"] or UNKNOWN, flags=re.IGNORECASE)
    if _UPPER_COMMIT.fullmatch(revision):
        revision = revision.lower()
    return Address(match["repository"], revision, match["path"] or "")


def check_not_url(what: str) -> None:
    """Refuses the URL of a page or a file; of one on the Hub, the error has the address.

    Raises:
        OptionError: The text is a URL, or an address whose prefix is in upper case.
    """
    if what[:3].lower() == PREFIX and not what.startswith(PREFIX):
        raise OptionError(
            f"{what} is neither a file nor an address.", hint=f"Write {PREFIX}{what[3:]}."
        )
    match = _URL.match(what)
    if match is None:
        return
    page = _PAGE.fullmatch(match["rest"].partition("?")[0].rstrip("/"))
    if page is None:
        is_local = what[:5].lower() == "file:"
        raise OptionError(
            f"{what} is a URL, and nothing is fetched from there.",
            hint=f"Write {match['rest']}." if is_local else "Download the file, and give its path.",
        )
    revision = f"@{page['revision']}" if page["revision"] not in (None, "main") else ""
    path = f"/{page['path']}" if page["path"] else ""
    raise OptionError(
        f"{what} is a URL of the Hub.", hint=f"Write {PREFIX}{page['repository']}{revision}{path}."
    )


def readings(address: Address) -> Iterator[Address]:
    """Yields the readings of an address whose revision may have slashes, shortest first."""
    yield address
    repository, revision, path = address
    if revision in (UNKNOWN, "main") or is_commit(revision):
        return
    while path:
        part, _, path = path.partition("/")
        revision = f"{revision}/{part}"
        yield Address(repository, revision, path)


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which never moves."""
    return _COMMIT.fullmatch(revision) is not None
