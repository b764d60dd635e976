"""Knows bytes by their sha256, and remembers which files were verified.

A receipt says: the file at this path, with this size, these times and this inode, had this hash.
As long as the file looks the same it is not read again. A receipt counts for the user who wrote it
and for the hash that it names, so in a cache that several people write nobody vouches for another.
Receipts are a convenience: where they cannot be written, files are hashed each time.
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
"""Bytes; the list of a repository of several 100,000 files is smaller."""


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file in lower-case hex.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_hash_of(path: Path) -> str:
    """Returns git's name for the contents of a file; the Hub announces it for small files.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_header(path: Path, *, dist: str | None = None) -> None:
    """Makes sure that a safetensors file can be opened; no tensor is read.

    Raises:
        IntegrityError: It is something else, or cut off.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise IntegrityError(
            f"{path} is no readable safetensors file: {error}.",
            hint="It has the pinned hash, so ask the publisher for a good file.",
            dist=dist,
        ) from error


class Resolution(msgspec.Struct, frozen=True):
    """The answer of the Hub about a file whose manifest leaves revision or hash open."""

    revision: str
    sha256: str


class _Receipt(msgspec.Struct, frozen=True):
    """A file in the folder of receipts; `of` is its name, so that none passes for another."""

    of: str
    content: msgspec.Raw


class Receipts:
    """Verified files on this machine, by hash.

    Args:
        folder: Where the receipts lie; made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, sha256: str) -> Path | None:
        """Returns a file that was verified to have this hash and has not been touched since."""
        for name, stamp in self._stamps(sha256).items():
            if Stamp.of(path := _named(name)) == stamp:
                return path
        return None

    def has(self, path: Path, sha256: str) -> bool:
        """Whether this very file was verified to have this hash and has not been touched since."""
        stamp = self._stamps(sha256).get(_name(path))
        return stamp is not None and Stamp.of(path) == stamp

    def verify(self, path: Path, sha256: str) -> bool:
        """Hashes a file, unless it has a receipt, and writes one if the hash fits."""
        if self.has(path, sha256):
            return True
        before = Stamp.of(path)
        if before is None or sha256_of(path) != sha256 or Stamp.of(path) != before:
            return False
        alive = {n: s for n, s in self._stamps(sha256).items() if Stamp.of(_named(n)) == s}
        self._write(f"{sha256}.json", {**alive, _name(path): before})
        return True

    def verified(self, path: Path, file: WeightsFile, announced: Announced) -> str | None:
        """Returns the sha256 of a file if it is the one that is pinned, or else announced."""
        digest = file.sha256
        if digest == UNKNOWN and announced.has_sha256:
            digest = announced.etag
        elif digest == UNKNOWN and Stamp.of(path) and git_hash_of(path) == announced.etag:
            digest = sha256_of(path)
        return digest if self.verify(path, digest) else None

    def resolution(self, wanted: WeightsFile) -> Resolution | None:
        """Returns the answer to the first fetch of a file with an unknown revision or hash."""
        return self._read(_resolution_name(wanted), Resolution)

    def resolve(self, wanted: WeightsFile, found: Resolution) -> None:
        """Remembers the answer to the first fetch of such a file; later ones are held to it."""
        self._write(_resolution_name(wanted), found)

    def contents(self, repository: str, revision: str) -> Contents | None:
        """Returns the contents that a repository had when it was first asked for."""
        return self._read(_contents_name(repository, revision), Contents)

    def list(self, repository: str, revision: str, found: Contents) -> None:
        """Remembers the contents of a repository; it is held to them."""
        self._write(_contents_name(repository, revision), found)

    def rewriting(self, sha256: str) -> str | None:
        """Returns the hash of the safetensors file that a pickle was rewritten as."""
        return self._read(f"pickle-{sha256}.json", str)

    def rewrite(self, sha256: str, rewritten: str) -> None:
        """Remembers the hash of the safetensors file that a pickle was rewritten as."""
        self._write(f"pickle-{sha256}.json", rewritten)

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


def pinned(wanted: WeightsFile, found: Resolution | None) -> WeightsFile:
    """Fills in what a manifest leaves open with what the first fetch was told."""
    if found is None or UNKNOWN not in (wanted.revision, wanted.sha256):
        return wanted
    if UNKNOWN not in (wanted.sha256, found.sha256) and wanted.sha256 != found.sha256:
        return wanted
    return msgspec.structs.replace(wanted, revision=found.revision, sha256=found.sha256)


_BYTES: Final = "bytes:"


def _name(path: Path) -> str:
    """Returns a path as text that JSON can hold, whatever bytes the path is made of."""
    text = str(path)
    return text if text.isascii() or _is_text(text) else f"{_BYTES}{os.fsencode(text).hex()}"


def _named(name: str) -> Path:
    """Returns the path that a name in a receipt is for."""
    is_bytes = name.startswith(_BYTES)
    return Path(os.fsdecode(bytes.fromhex(name.removeprefix(_BYTES))) if is_bytes else name)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # an undecodable byte of a path, which Python keeps as a surrogate
        return False
    return True


def _contents_name(repository: str, revision: str) -> str:
    return f"list-{hashlib.sha256(f'{repository}@{revision}'.encode()).hexdigest()}.json"


def _resolution_name(wanted: WeightsFile) -> str:
    parts = (wanted.source, wanted.revision, wanted.file or "", wanted.sha256)
    return f"source-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()}.json"
