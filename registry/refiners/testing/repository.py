"""A repository that a loopback Hub serves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from huggingface_hub.utils.sha import git_hash


class Repository(NamedTuple):
    """A published repository, with the pins for a manifest."""

    name: str
    commit: str
    files: Mapping[str, bytes]
    license: str = ""
    tags: tuple[str, ...] = ()
    """More tags, such as `base_model:adapter:organisation/name`, by which a search filters."""
    license_name: str = ""
    """The name in the card of a licence whose tag is `other`."""

    def sha256(self, file: str) -> str:
        """Returns the hash of a file."""
        return hashlib.sha256(self.files[file]).hexdigest()


def tags_of(repository: Repository) -> list[str]:
    """Returns the tags of a repository, with that of its licence."""
    licence = [f"license:{repository.license}"] if repository.license else []
    return [*licence, *repository.tags]


def etag_of(file: str, data: bytes) -> str:
    """Returns the etag of the Hub: git's hash for small text, the sha256 for other files."""
    if file.endswith((".json", ".txt", ".jsonl", ".toml")):
        return git_hash(data)
    return hashlib.sha256(data).hexdigest()


def listed(file: str, data: bytes) -> dict[str, object]:
    """Returns the entry of a file in the list of a repository."""
    etag = etag_of(file, data)
    entry: dict[str, object] = {"type": "file", "path": file, "size": len(data), "oid": etag}
    if len(etag) == 40:
        return entry
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{etag}\nsize {len(data)}\n"
    lfs = {"oid": etag, "size": len(data), "pointerSize": len(pointer)}
    return entry | {"oid": git_hash(pointer.encode()), "lfs": lfs}
