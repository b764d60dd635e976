"""Reads small files of a repository into memory, with one request each.

The cache of huggingface_hub sends two requests before a download and keeps five files for each one,
which suits weights but not a catalog. What the Hub announces and sends is compared with the list of
the repository, as in `Hub.fetch`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from refiners.errors import IntegrityError, RefinersError
from refiners.hub.client import Hub
from refiners.hub.errors import explained, patiently, unavailable
from refiners.hub.metadata import Announced, Contents, agreed
from refiners.hub.request import get
from refiners.manifest.schema import UNKNOWN, WeightsFile

_AT_ONCE: Final = 8
"""How many files are fetched at the same time."""


def read_documents(
    hub: Hub, repository: str, contents: Contents, names: Iterable[str]
) -> dict[str, bytes]:
    """Returns the bytes of small files at the commit of a list.

    Args:
        hub: The Hub.
        repository: `organisation/name`.
        contents: The list of the repository, with the size and the hash of each file.
        names: The files to read.

    Raises:
        NetworkError: The Hub does not answer, or does not have the files.
        OfflineError: Going online is forbidden.
        IntegrityError: The Hub announces or sends something other than it listed.
    """
    wanted = {
        name: WeightsFile(
            source=f"hf:{repository}",
            file=name,
            revision=contents.commit,
            sha256=contents.files[name].sha256,
            size=contents.files[name].size,
            format="text",
        )
        for name in names
    }
    if not wanted:
        return {}
    if hub.is_offline:
        raise unavailable(next(iter(wanted.values())), None, hub.cache, None)

    def read(name: str) -> bytes:
        file = wanted[name]
        try:
            return patiently(lambda: _read(hub, file, contents.files[name].git))
        except RefinersError:
            raise
        except Exception as error:
            raise explained(error, file, hub.endpoint, None) from error

    with ThreadPoolExecutor(_AT_ONCE, "refiners-read") as pool:
        futures = {name: pool.submit(read, name) for name in wanted}
        try:
            return {name: future.result() for name, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read(hub: Hub, file: WeightsFile, git: str) -> bytes:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(file.address, file.file or "", revision=file.revision, endpoint=hub.endpoint)
    size = file.size or 0
    different = IntegrityError(
        f"{hub.address} sent {file} with other bytes than it listed.",
        hint="Nothing was changed. Try again later, and without a mirror.",
    )
    with get(url, hub.token) as answer:
        etag = answer.header("X-Linked-Etag", "ETag").removeprefix("W/").strip('"')
        announced = Announced(answer.header("X-Repo-Commit"), etag, size)
        agreed(file, announced, hub.address, None)
        body = answer.read(size, different)
    if len(body) != size or not _is_listed(body, file, git):
        raise different
    return body


def _is_listed(body: bytes, file: WeightsFile, git: str) -> bool:
    if file.sha256 != UNKNOWN:
        return hashlib.sha256(body).hexdigest() == file.sha256
    return git_hash_of_bytes(body) == git


def git_hash_of_bytes(content: bytes) -> str:
    """Returns the hash by which git names a file with this content: 40 hexadecimal digits."""
    from huggingface_hub.utils.sha import git_hash

    return git_hash(content)
