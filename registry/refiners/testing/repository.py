"""A repository that a loopback Hub serves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple


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
