"""The folder on this machine, or in a repository of the Hub, in which a file of the user lies."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast

from refiners.errors import IntegrityError, OfflineError
from refiners.hub.client import Hub
from refiners.hub.metadata import Contents
from refiners.hub.shapes import header_of
from refiners.hub.tensor_header import Header
from refiners.manifest.address import PREFIX, Address
from refiners.manifest.pattern import LOCAL
from refiners.manifest.schema import UNKNOWN, WeightsFile
from refiners.sources.fetch import fetch_file

SUFFIX: Final = ".safetensors"
INDEX: Final = ".safetensors.index.json"
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
WEIGHTS: Final = (SUFFIX, INDEX, *PICKLES)
"""The endings of files that may hold weights."""
_LARGEST_TEXT: Final = 50_000_000
"""The most bytes of a JSON file that are read: the index of a large model has a few."""
_MOST: Final = 2_000
"""The most files of a folder that are looked at."""
_DEEPEST: Final = 3
"""The depth to which folders are searched."""


def format_of(name: str) -> Literal["safetensors", "json", "text", "pickle"]:
    """Returns the format of a file by its ending."""
    if name.endswith(PICKLES):
        return "pickle"
    if name.endswith(".json"):
        return "json"
    return "safetensors" if name.endswith(SUFFIX) else "text"


@dataclass(frozen=True)
class LocalPlace:
    """A folder on this machine.

    Args:
        folder: The folder, as the user wrote it.
    """

    folder: Path

    @property
    def names(self) -> tuple[str, ...]:
        """The paths of the files in the folder, relative to it and sorted."""
        root = self.folder.expanduser()
        names: list[str] = []
        for folder, folders, files in os.walk(root):
            above = Path(folder).relative_to(root)
            if len(above.parts) + 1 >= _DEEPEST:
                folders.clear()
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            names += [
                (above / name).as_posix()
                for name in files
                if not name.startswith(".") and os.path.isfile(os.path.join(folder, name))
            ]
            if len(names) >= _MOST:
                break
        return tuple(sorted(names[:_MOST]))

    def written(self, name: str) -> str:
        """Returns a file as a user writes it."""
        return os.path.join(self.folder, name) if str(self.folder) != "." else name

    def has(self, name: str) -> bool:
        """Whether the folder has a file; the name may lead to a folder beside it."""
        return (self.folder.expanduser() / name).is_file()

    def file(self, name: str) -> WeightsFile:
        """Returns a file of the folder without pins."""
        size = (self.folder.expanduser() / name).stat().st_size
        return WeightsFile(
            source=f"{LOCAL}:{self.written(name)}", size=size or None, format=format_of(name)
        )


@dataclass(frozen=True)
class HubPlace:
    """A folder in a repository of the Hub.

    Args:
        address: The repository and the folder in it.
        contents: The list of the repository.
    """

    address: Address
    contents: Contents

    @property
    def names(self) -> tuple[str, ...]:
        """The paths of the files in the folder, relative to it and sorted."""
        start = f"{self.address.path}/" if self.address.path else ""
        inside = (name.removeprefix(start) for name in self.contents.files
                  if name.startswith(start))  # fmt: skip
        return tuple(sorted(inside))

    def written(self, name: str) -> str:
        """Returns a file as a user writes it."""
        revision = f"@{self.address.revision}" if self.address.revision != UNKNOWN else ""
        return f"{PREFIX}{self.address.repository}{revision}/{self._path(name)}"

    def has(self, name: str) -> bool:
        """Whether the repository has a file; the name may lead to a folder beside this one."""
        return self._path(name) in self.contents.files

    def file(self, name: str) -> WeightsFile:
        """Returns a file with the pins that the list announces."""
        path = self._path(name)
        entry = self.contents.files[path]
        return WeightsFile(
            source=f"{PREFIX}{self.address.repository}",
            file=path,
            revision=self.contents.commit,
            sha256=entry.sha256,
            size=entry.size or None,
            license=self.contents.license,
            format=format_of(path),
        )

    def _path(self, name: str) -> str:
        return posixpath.normpath(posixpath.join(self.address.path, name))


Place = LocalPlace | HubPlace


def read_text(file: WeightsFile, hub: Hub) -> bytes | None:
    """Returns the content of a small text; None if it is too large, or not on this machine offline.

    Raises:
        NetworkError, IntegrityError, CacheError: The Hub does not send it as it announced.
    """
    if file.size is None or file.size > _LARGEST_TEXT:
        return None
    try:
        return fetch_file(file, hub).read_bytes()
    except (OfflineError, OSError):
        return None


def read_table(file: WeightsFile, hub: Hub) -> Mapping[str, Any]:
    """Returns the fields of a JSON file; none if it is not a readable JSON object.

    Raises:
        NetworkError, IntegrityError, CacheError: The Hub does not send it as it announced.
    """
    try:
        table: Any = json.loads(read_text(file, hub) or b"")
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", table) if isinstance(table, dict) else {}


def shards_of(place: Place, name: str, hub: Hub) -> tuple[str, ...]:
    """Returns the files that an index names, relative to the folder of the place.

    Raises:
        IntegrityError: The index is damaged, or names files that are missing or elsewhere.
    """
    folder = posixpath.dirname(name)
    weight_map = read_table(place.file(name), hub).get("weight_map")
    names = {*cast("dict[str, Any]", weight_map).values()} if isinstance(weight_map, dict) else {""}
    for shard in names:
        is_name = isinstance(shard, str) and shard and PurePosixPath(shard).name == shard
        if not is_name or not place.has(posixpath.join(folder, shard)):
            raise IntegrityError(
                f"{place.written(name)} is not an index of files beside it: it names {shard!r}.",
                hint="Fetch the file again, with the files that it names.",
            )
    return tuple(sorted(posixpath.join(folder, str(shard)) for shard in names))


def header_at(place: Place, name: str, hub: Hub) -> Header | None:
    """Returns the header of a file, or the headers of all files of an index as one.

    Raises:
        IntegrityError: A file is not a safetensors file.
        NetworkError: The Hub does not answer.
    """
    if not name.endswith(INDEX):
        return header_of(place.file(name), hub)
    whole: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    for shard in shards_of(place, name, hub):
        header = header_of(place.file(shard), hub)
        if header is None:
            return None
        whole |= header.tensors
        metadata |= header.metadata
    return Header(whole, metadata)
