"""Asks the Hub for the list of files of a repository."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import msgspec

from refiners.errors import IntegrityError
from refiners.host.secret import hidden
from refiners.hub.metadata import Contents, Entry, check_commit
from refiners.hub.request import get
from refiners.manifest.schema import UNKNOWN, WeightsFile

LARGEST: Final = 64_000_000
"""The most bytes of all pages of a list; the list of 100,000 files is smaller."""
_MOST_PAGES: Final = 1_000
"""The most pages of a list; the Hub puts 1000 files on each."""


class _Card(msgspec.Struct, rename={"licence": "license_name"}):
    licence: str | None = None
    """The name of a licence that the Hub does not list, whose tag is `other`."""


class _Info(msgspec.Struct, rename={"card": "cardData"}):
    sha: str | None = None
    tags: tuple[str, ...] | None = None
    card: _Card | None = None


class _Lfs(msgspec.Struct):
    oid: str


class _Item(msgspec.Struct):
    """A file or a folder, as the Hub lists it."""

    type: str
    path: str
    oid: str = ""
    size: int = 0
    lfs: _Lfs | None = None


def read_contents(repository: WeightsFile, endpoint: str, token: bool | None) -> Contents:
    """Returns the files of a repository at one commit.

    Args:
        repository: The repository and its revision, as the file `ALL_FILES`.
        endpoint: The address of the Hub.
        token: Whether to send the user's token; None leaves it to the client.

    Raises:
        IntegrityError: The Hub answers with another commit, or with an endless list.
        Exception: The client's own error for a refusal.
    """
    api = f"{endpoint}/api/models/{repository.address}"
    is_main = repository.revision == UNKNOWN
    url = api if is_main else f"{api}/revision/{quote(repository.revision, safe='')}"
    pages = _pages(url, endpoint, token)
    info = msgspec.json.decode(next(pages), type=_Info)
    commit = info.sha or ""
    check_commit(repository, commit, hidden(endpoint))
    licenses = (
        tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")
    )
    items = (
        item
        for page in _pages(f"{api}/tree/{commit}?recursive=true", endpoint, token)
        for item in msgspec.json.decode(page, type=list[_Item])
    )
    entries = {
        item.path: Entry(item.size, item.oid, item.lfs.oid if item.lfs else UNKNOWN)
        for item in items
        if item.type == "file"
    }
    license = next(licenses, "")
    if license == "other" and info.card and info.card.licence:
        license = info.card.licence
    return Contents(commit, license, entries)


def _pages(url: str, endpoint: str, token: bool | None) -> Iterator[bytes]:
    """Yields the pages of an answer, up to the limits.

    Raises:
        IntegrityError: The pages are too many or too long.
    """
    too_long = IntegrityError(
        f"{hidden(endpoint)} sends an endless list of files: more than {LARGEST} bytes.",
        hint="Nothing was downloaded. Try again later, and without a mirror.",
    )
    left = LARGEST
    for _ in range(_MOST_PAGES):
        # another server than the Hub must not get the user's token
        is_hub = url.startswith(f"{endpoint}/")
        with get(url, token if is_hub else False) as answer:
            page = answer.read(left, too_long)
        left -= len(page)
        yield page
        url = answer.next_page
        if not url:
            return
    raise too_long
