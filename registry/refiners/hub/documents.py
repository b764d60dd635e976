"""Small files of a repository, read into memory with one request each.

The cache of huggingface_hub asks twice before it downloads and keeps five files for each one, which
is right for weights and not for a catalog. What a Hub announces and what it sends is held to the
list of the repository, as `Hub.fetch` does.
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
"""How many files are on their way at the same time."""


def read_documents(
    hub: Hub, repository: str, contents: Contents, names: Iterable[str]
) -> dict[str, bytes]:
    """Returns the bytes of small files at the commit of a list.

    Args:
        hub: Where they are read from.
        repository: `organisation/name`.
        contents: The list; it has the size and the hash of each.
        names: Which of them.

    Raises:
        NetworkError: The Hub does not answer, or not with these files.
        OfflineError: Going online is forbidden.
        IntegrityError: What it announces or sends is not what it listed.
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
        begun = {name: pool.submit(read, name) for name in wanted}
        try:
            return {name: waiting.result() for name, waiting in begun.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read(hub: Hub, file: WeightsFile, git: str) -> bytes:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(file.address, file.file or "", revision=file.revision, endpoint=hub.endpoint)
    size = file.size or 0
    other = IntegrityError(
        f"{hub.address} sent other bytes for {file} than it listed.",
        hint="Nothing was changed. Try again later, and without a mirror.",
    )
    with get(url, hub.token) as answer:
        etag = answer.header("X-Linked-Etag", "ETag").removeprefix("W/").strip('"')
        announced = Announced(answer.header("X-Repo-Commit"), etag, size)
        agreed(file, announced, hub.address, None)
        body = answer.read(size, other)
    if len(body) != size or not _is_listed(body, file, git):
        raise other
    return body


def _is_listed(body: bytes, file: WeightsFile, git: str) -> bool:
    if file.sha256 != UNKNOWN:
        return hashlib.sha256(body).hexdigest() == file.sha256
    named = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False)
    return named.hexdigest() == git
