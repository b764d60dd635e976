"""Hashes files, and remembers which files were verified.

A receipt records that the file at a path, with a given size, times and inode, had a given hash.
While these stay the same, the file is not hashed again. A receipt is valid only for the user who
wrote it, so users who share a cache do not have to trust each other.
Receipts only save time: where they cannot be written, files are hashed at every load.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from refiners.errors import IntegrityError
from refiners.host.disk import open_regular, read_private, write_whole
from refiners.host.stamp import Stamp
from refiners.hub.metadata import Announced, Contents
from refiners.manifest.schema import UNKNOWN, WeightsFile

T = TypeVar("T")

_LARGEST: Final = 64_000_000
"""The most bytes of a receipt; the list of a repository of 100,000 files is smaller."""


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file in lower-case hex.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_hash_of(path: Path) -> str:
    """Returns git's hash of the contents of a file, which the Hub announces for small files.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_header(path: Path, *, dist: str | None = None) -> None:
    """Checks that a safetensors file can be opened, without reading a tensor.

    Raises:
        IntegrityError: The file is in another format, or truncated.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise IntegrityError(
            f"{path} is not a readable safetensors file: {error}.",
            hint="Its hash is the pinned one, so ask the publisher for an intact file.",
            dist=dist,
        ) from error


class Resolution(msgspec.Struct, frozen=True):
    """The revision and the hash of a file whose manifest leaves either of them open."""

    revision: str
    sha256: str


class _Hashed(msgspec.Struct, frozen=True):
    """The hash of a file of the user's, and the stamp that the file had then."""

    stamp: Stamp
    sha256: str


class _Receipt(msgspec.Struct, frozen=True):
    """A file in the folder of receipts; `of` is its name, so that a renamed one is refused."""

    of: str
    content: msgspec.Raw


class Receipts:
    """The record of verified files on this machine, by hash.

    Args:
        folder: The folder of the receipts, created with the first receipt.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, sha256: str) -> Path | None:
        """Returns a file that had this hash when it was verified and has not changed since."""
        for name, stamp in self._stamps(sha256).items():
            if Stamp.of(path := _path_of(name)) == stamp:
                return path
        return None

    def has(self, path: Path, sha256: str) -> bool:
        """Whether a file had this hash when it was verified and has not changed since."""
        stamp = self._stamps(sha256).get(_name(path))
        return stamp is not None and Stamp.of(path) == stamp

    def verify(self, path: Path, sha256: str) -> bool:
        """Whether a file has a hash: checks its receipt, or hashes it and writes a receipt."""
        if self.has(path, sha256):
            return True
        before = Stamp.of(path)
        if before is None or sha256_of(path) != sha256 or Stamp.of(path) != before:
            return False
        self._record(path, sha256, before)
        return True

    def hash_of(self, path: Path) -> str:
        """Returns the sha256 of a file of the user's, which is read again only after a change.

        Raises:
            OSError: The file cannot be read, or is not a regular file.
        """
        name = f"path-{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"
        stamp = Stamp.of(path)
        known = self._read(name, _Hashed)
        if known is not None and known.stamp == stamp:
            return known.sha256
        digest = sha256_of(path)
        if stamp is not None and Stamp.of(path) == stamp:
            self._write(name, _Hashed(stamp, digest))
            self._record(path, digest, stamp)
        return digest

    def verified(self, path: Path, file: WeightsFile, announced: Announced) -> str | None:
        """Returns the sha256 of a file if it has the pinned hash, or else the announced one."""
        digest = file.sha256
        if digest == UNKNOWN and announced.has_sha256:
            digest = announced.etag
        elif digest == UNKNOWN and Stamp.of(path) and git_hash_of(path) == announced.etag:
            digest = sha256_of(path)
        return digest if self.verify(path, digest) else None

    def resolution(self, wanted: WeightsFile) -> Resolution | None:
        """Returns how the first fetch resolved a file with an unknown revision or hash."""
        return self._read(_resolution_name(wanted), Resolution)

    def resolve(self, wanted: WeightsFile, resolution: Resolution) -> None:
        """Records how the first fetch resolved a file; later fetches must agree with it."""
        self._write(_resolution_name(wanted), resolution)

    def contents(self, repository: str, revision: str) -> Contents | None:
        """Returns the contents of a repository at its first load; None before."""
        return self._read(_contents_name(repository, revision), Contents)

    def list(self, repository: str, revision: str, contents: Contents) -> None:
        """Records the contents of a repository; later loads use them."""
        self._write(_contents_name(repository, revision), contents)

    def rewriting(self, sha256: str) -> str | None:
        """Returns the hash of the safetensors file that a pickle was converted to."""
        return self._read(f"pickle-{sha256}.json", str)

    def rewrite(self, sha256: str, rewritten: str) -> None:
        """Records the hash of the safetensors file that a pickle was converted to."""
        self._write(f"pickle-{sha256}.json", rewritten)

    def _record(self, path: Path, sha256: str, stamp: Stamp) -> None:
        valid = {n: s for n, s in self._stamps(sha256).items() if Stamp.of(_path_of(n)) == s}
        self._write(f"{sha256}.json", {**valid, _name(path): stamp})

    def _stamps(self, sha256: str) -> Mapping[str, Stamp]:
        return self._read(f"{sha256}.json", dict[str, Stamp]) or {}

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            receipt = msgspec.json.decode(read_private(self.folder / name, _LARGEST), type=_Receipt)
            if receipt.of != name:
                return None
            return msgspec.json.decode(receipt.content, type=kind)
        except (OSError, msgspec.DecodeError, RecursionError):
            return None

    def _write(self, name: str, content: object) -> None:
        receipt = _Receipt(name, msgspec.Raw(msgspec.json.encode(content)))
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, msgspec.json.encode(receipt))


def pinned(wanted: WeightsFile, resolution: Resolution | None) -> WeightsFile:
    """Fills in the pins that a manifest leaves open, as the first fetch resolved them."""
    if resolution is None or UNKNOWN not in (wanted.revision, wanted.sha256):
        return wanted
    if UNKNOWN not in (wanted.sha256, resolution.sha256) and wanted.sha256 != resolution.sha256:
        return wanted
    return msgspec.structs.replace(wanted, revision=resolution.revision, sha256=resolution.sha256)


_BYTES: Final = "bytes:"


def _name(path: Path) -> str:
    """Returns a path as text that JSON can hold, even if the path is not valid UTF-8."""
    text = str(path)
    return text if text.isascii() or _is_text(text) else f"{_BYTES}{os.fsencode(text).hex()}"


def _path_of(name: str) -> Path:
    """Returns the path of a name in a receipt."""
    is_bytes = name.startswith(_BYTES)
    return Path(os.fsdecode(bytes.fromhex(name.removeprefix(_BYTES))) if is_bytes else name)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except (
        UnicodeEncodeError
    ):  # an undecodable byte of a path, which Python represents as a surrogate
        return False
    return True


def _contents_name(repository: str, revision: str) -> str:
    return f"list-{hashlib.sha256(f'{repository}@{revision}'.encode()).hexdigest()}.json"


def _resolution_name(wanted: WeightsFile) -> str:
    parts = (wanted.source, wanted.revision, wanted.file or "", wanted.sha256)
    return f"source-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()}.json"
