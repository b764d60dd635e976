"""Fetches files from the Hub, and returns only files that it has verified.

huggingface_hub compares sizes alone: it accepts another commit than the requested one, other bytes
of the right size, and a damaged file in its cache. This module therefore compares what the server
announces with the pins before it downloads a byte, hashes the file, and writes a receipt.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec

from refiners.errors import IntegrityError, RefinersError
from refiners.host.parallel import check_called_off
from refiners.host.secret import hidden
from refiners.hub.contents import read_contents
from refiners.hub.download_lock import SILENCE, forget, lock_of, take_turn
from refiners.hub.errors import explained, is_of_request, patiently, shown_cause, unavailable
from refiners.hub.local_settings import client_constants, data_folder
from refiners.hub.metadata import ALL_FILES, Announced, Contents, agreed, branch_of
from refiners.hub.receipts import Receipts, Resolution, pinned, sha256_of
from refiners.hub.request import get
from refiners.hub.size_limit import limit_of, metered, too_large
from refiners.hub.tensor_header import FIRST, CutOffError, Header, header_in
from refiners.manifest.schema import UNKNOWN, WeightsFile

_TRUE: Final = {"1", "on", "yes", "true"}
_PIECE: Final = 1 << 16
"""The most bytes that are received before a limit is checked."""


@dataclass(frozen=True)
class Hub:
    """A Hub, and the cache of its files on this machine.

    Args:
        endpoint: The address of the Hub.
        cache: The folder of huggingface_hub's cache.
        receipts: The record of verified files.
        is_offline: Whether opening a socket is forbidden.
        largest: The largest file that the policies allow, in bytes; None for any size.
    """

    endpoint: str
    cache: Path
    receipts: Receipts
    is_offline: bool
    largest: int | None = None

    @classmethod
    def from_environment(cls, offline: bool | None = None, *, largest: int | None = None) -> Hub:
        """Returns the Hub that huggingface_hub is configured for, with receipts beside its cache.

        Args:
            offline: Whether to stay offline; None reads REFINERS_OFFLINE and HF_HUB_OFFLINE.
            largest: The largest file that the policies allow, in bytes.
        """
        constants = client_constants()
        # telemetry would first read a list of unlimited length from the Hub
        constants.HF_HUB_DISABLE_TELEMETRY = True
        constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, _PIECE)
        if offline is None:
            variable = os.environ.get("REFINERS_OFFLINE", "").lower()
            offline = variable in _TRUE or bool(constants.is_offline_mode())
        return cls(
            endpoint=constants.ENDPOINT,
            cache=Path(constants.HF_HUB_CACHE),
            receipts=Receipts(data_folder() / "receipts"),
            is_offline=offline,
            largest=largest,
        )

    @property
    def address(self) -> str:
        """The endpoint for messages, without a password."""
        return hidden(self.endpoint)

    @property
    def token(self) -> bool | None:
        """Whether to send the user's token; None, for https, leaves it to the client."""
        return None if self.endpoint.startswith("https://") else False

    def fetch(self, wanted: WeightsFile, *, dist: str | None = None) -> Path:
        """Returns a verified file, and downloads it if it is not on this machine.

        Args:
            wanted: The repository, the file, and its pinned revision, hash and size.
            dist: The distribution that pins them, for messages.

        Raises:
            NetworkError: The Hub does not answer, or does not have the file.
            OfflineError: The file is not on this machine and going online is forbidden.
            IntegrityError: The Hub announces or sends something other than the pinned file.
            CacheError: The cache cannot be written.
        """
        file = self.pinned(wanted)
        if file.sha256 != UNKNOWN and (known := self.receipts.find(file.sha256)):
            return known
        try:
            cached = self.cached(file)
            if cached and file.sha256 != UNKNOWN and self.receipts.verify(cached, file.sha256):
                return cached
            if self.is_offline:
                raise unavailable(file, cached, self.cache, dist)
            return self._download(wanted, file, dist)
        except RefinersError:
            raise
        except Exception as error:
            raise explained(error, file, self.endpoint, dist) from shown_cause(error)

    def verified_file(self, wanted: WeightsFile) -> Path | None:
        """Returns a file that was verified before and has not changed since."""
        file = self.pinned(wanted)
        return None if file.sha256 == UNKNOWN else self.receipts.find(file.sha256)

    def pinned(self, wanted: WeightsFile) -> WeightsFile:
        """Fills in the pins that a manifest leaves open, as the first fetch resolved them."""
        return pinned(wanted, self.receipts.resolution(wanted))

    def pin(self, wanted: WeightsFile, *, dist: str | None = None) -> WeightsFile:
        """Fills in the revision, hash and size of a file; downloads it only to learn its hash.

        Raises:
            NetworkError: The Hub does not answer, or does not have the file.
            OfflineError: Only the Hub knows a pin, and going online is forbidden.
            IntegrityError: The Hub announces something other than the pinned file.
        """
        file = self.pinned(wanted)
        if UNKNOWN in (file.revision, file.sha256):
            if self.is_offline:
                raise unavailable(file, None, self.cache, dist)
            try:
                announced = patiently(lambda: self._announced(file))
                revision = agreed(file, announced, self.address, dist)
            except Exception as error:
                raise explained(error, file, self.endpoint, dist) from shown_cause(error)
            sha256 = announced.etag if announced.has_sha256 else file.sha256
            file = msgspec.structs.replace(
                file, revision=revision, sha256=sha256, size=announced.size or file.size
            )
            if sha256 == UNKNOWN:  # the Hub names small text by git's SHA-1, a weaker pin
                path = self.fetch(file, dist=dist)
                file = msgspec.structs.replace(file, sha256=sha256_of(path))
        if file.size is None and (path := self.verified_file(file)):
            file = msgspec.structs.replace(file, size=path.stat().st_size)
        return file

    def contents(self, repository: str, revision: str = UNKNOWN) -> Contents:
        """Asks the Hub which files a repository has.

        Args:
            repository: `organisation/name`.
            revision: A commit, a branch or a tag; the main branch if unknown.

        Raises:
            NetworkError: The Hub does not answer, or does not have the repository or revision.
            OfflineError: Going online is forbidden.
            IntegrityError: The Hub answers with another commit, or with an endless list.
        """
        listing = WeightsFile(source=f"hf:{repository}", revision=revision, file=ALL_FILES)
        if self.is_offline:
            raise unavailable(listing, None, self.cache, None)
        try:
            return patiently(lambda: read_contents(listing, self.endpoint, self.token))
        except Exception as error:
            raise explained(error, listing, self.endpoint, None) from shown_cause(error)

    def header(self, wanted: WeightsFile, *, dist: str | None = None) -> Header | None:
        """Reads the header of a safetensors file, and nothing behind it.

        A header of up to 100 kB costs one request, a larger one two.

        Args:
            wanted: The file.
            dist: The distribution that names it, for messages.

        Returns:
            The header, which no hash verifies; None if going online is forbidden.

        Raises:
            NetworkError: The Hub does not answer, or does not have the file.
            IntegrityError: The file is not in the safetensors format.
        """
        if self.is_offline:
            return None
        file = self.pinned(wanted)

        def ask(last: int, received: bytes = b"") -> Header:
            part = {"Range": f"bytes={len(received)}-{last}"}
            with get(self._url(file), self.token, part) as answer:
                return header_in(answer.pieces(), received if answer.is_part else b"")

        try:
            try:
                return patiently(lambda: ask(FIRST))
            except CutOffError as error:
                needed, received = error.needed, error.received
                if len(received) <= FIRST:  # the whole file was sent
                    raise
                return patiently(lambda: ask(needed - 1, received))
        except Exception as error:
            if is_of_request(error):
                raise explained(error, file, self.endpoint, dist) from shown_cause(error)
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise IntegrityError(
                f"{file} is not a readable safetensors file: {reason}. Nothing was downloaded.",
                hint="Ask the publisher for an intact file.",
                dist=dist,
            ) from error

    def _download(self, wanted: WeightsFile, file: WeightsFile, dist: str | None) -> Path:
        announced = patiently(lambda: self._announced(file))
        revision = agreed(file, announced, self.address, dist)
        if self.largest is not None and announced.size and announced.size > self.largest:
            raise too_large(file, announced.size, self.largest, "Nothing was downloaded.", dist)
        action = f"fetching {file} from {self.address}"
        receive = partial(self._received, file, revision, announced, dist)
        for force in (False, True):  # the cache may hold damaged bytes; forcing replaces them
            path = patiently(partial(receive, force), action)
            if digest := self.receipts.verified(path, file, announced):
                break
            forget(path, dist)
        else:
            raise IntegrityError(
                f"{self.address} sent {file} with the wrong hash, twice.",
                hint="Nothing was loaded. Try again later, and without a mirror.",
                dist=dist,
            )
        if UNKNOWN in (wanted.revision, wanted.sha256):
            self.receipts.resolve(wanted, Resolution(revision, digest))
        return path

    def cached(self, file: WeightsFile) -> Path | None:
        """Returns the path of a file in the cache; its bytes are not verified."""
        from huggingface_hub import try_to_load_from_cache

        name = cast("str", file.file)
        path = try_to_load_from_cache(file.address, name, self.cache, branch_of(file))
        return Path(path) if isinstance(path, str) else None

    def _announced(self, file: WeightsFile) -> Announced:
        from huggingface_hub import get_hf_file_metadata

        metadata = get_hf_file_metadata(self._url(file), token=self.token, endpoint=self.endpoint)
        return Announced(metadata.commit_hash or "", metadata.etag or "", metadata.size)

    def _received(
        self, file: WeightsFile, revision: str, announced: Announced, dist: str | None, force: bool
    ) -> Path:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.file_download import repo_folder_name
        from huggingface_hub.utils import WeakFileLock, tqdm

        check_called_off()
        folder = repo_folder_name(repo_id=file.address, repo_type="model")
        blob = self.cache / folder / "blobs" / announced.etag
        lock = lock_of(self.cache, folder, announced.etag)
        take_turn(lock, blob, WeakFileLock, max(SILENCE, 1.5 * constants.HF_HUB_DOWNLOAD_TIMEOUT))
        limit = limit_of(file, announced.size, self.largest, self.address, dist)
        return Path(
            hf_hub_download(
                file.address,
                cast("str", file.file),
                revision=revision,
                cache_dir=self.cache,
                endpoint=self.endpoint,
                token=self.token,
                force_download=force,
                library_name="refiners",
                tqdm_class=metered(tqdm, *limit),
            )
        )

    def _url(self, file: WeightsFile) -> str:
        from huggingface_hub import hf_hub_url

        name, revision = cast("str", file.file), branch_of(file)
        return hf_hub_url(file.address, name, revision=revision, endpoint=self.endpoint)
