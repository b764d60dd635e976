"""The texts that manifests may have for names, sources, revisions and hashes."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from refiners.host.text import UNSEEN
from refiners.manifest.term import END, WORDS

UNKNOWN: Final = "unknown"
"""A revision or a hash that is not pinned; the first fetch resolves it."""
LOCAL: Final = "file"
"""The scheme of a local file that a user names; manifests may not use it."""

_PART = rf"[^/\\:.{UNSEEN}][^/\\:{UNSEEN}]*"
REPOSITORY: Final = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
FILE_NAME: Final = rf"{_PART}(/{_PART})*"

OptionalName = Annotated[
    str, Meta(pattern=f"^({WORDS})?{END}", description="lower-case words joined by hyphens")
]
Reference = Annotated[
    str,
    Meta(
        pattern=rf"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*{END}",
        description='"package.module:attribute"',
    ),
]
_SOURCE = (
    rf"hf:{REPOSITORY}|pkg:[A-Za-z_][A-Za-z0-9_]*(/{_PART})+|"
    rf"(?!hf:|pkg:|{LOCAL}:|https?:)[a-z][a-z0-9+.-]*:[^\s{UNSEEN}]+"
)
Location = Annotated[
    str,
    Meta(
        pattern=rf"^({_SOURCE}){END}",
        description='"hf:organisation/repository", "pkg:package/path/to/file" or "scheme:address"',
    ),
]
LockedLocation = Annotated[
    str,
    Meta(
        pattern=rf"^({_SOURCE}|{LOCAL}:[^{UNSEEN}]+){END}",
        description='as a manifest has it, or "file:path" for a file of the user\'s',
    ),
]
FileName = Annotated[
    str,
    Meta(pattern=rf"^{FILE_NAME}{END}", description="a path inside the repository"),
]
Commit = Annotated[
    str,
    Meta(
        pattern=f"^([0-9a-f]{{40}}|{UNKNOWN}){END}",
        description='40 lower-case hex digits, or "unknown"',
    ),
]
Digest = Annotated[
    str,
    Meta(
        pattern=f"^([0-9a-f]{{64}}|{UNKNOWN}){END}",
        description='64 lower-case hex digits, or "unknown"',
    ),
]
