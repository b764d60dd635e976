"""Pictures in WebDataset shards: tar files whose members of one name belong together."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from refiners_train.data.data_error import DataError, listed
from refiners_train.data.extra import imported
from refiners_train.data.fingerprint import fingerprint_of
from refiners_train.data.record import PICTURE, PICTURES, Record

Place = tuple[int, int, int]
"""The number of a shard, and where a member begins in it and its size, in bytes."""


class Shards:
    """Samples of shards by index, in the order of the files.

    The headers of all shards are read once; a sample is read where it is, so that any order costs
    the same. Shards are files on this disk.

    Args:
        paths: The shards, in braces as `shards/{000..003}.tar`.
        text: The ending of captions, or `ending:key` for a text in JSON, such as `json:caption`.
        caption: The caption of all pictures, in place of members.
        picture: The ending of pictures; by default any ending of pictures.
        conditions: For each input of the adapter, the ending of its members, such as `edges.png`;
            `picture` for the picture itself.
        mask: The ending of masks, or `alpha`; empty for none.

    Raises:
        DataError: The library is not installed, a shard cannot be read, or a sample lacks a member;
            the message names all of them.
    """

    def __init__(
        self,
        paths: str,
        *,
        text: str = "txt",
        caption: str | None = None,
        picture: str = "",
        conditions: Mapping[str, str] | None = None,
        mask: str = "",
    ) -> None:
        library = imported("webdataset", extra="webdataset")
        self._split: Final = library.tariterators.base_plus_ext
        self._shards: Final = [Path(path) for path in library.shardlists.expand_urls(paths)]
        self._text, _, self._key = text.partition(":")
        self._caption, self._picture, self._mask = caption, picture, mask
        self._conditions: Final = dict(conditions or {})
        self._faults: list[str] = []
        self._samples: Final = [
            sample
            for number, path in enumerate(self._shards)
            for sample in self._read(number, path)
        ]
        self._check()
        self.fingerprint: Final = fingerprint_of(
            [text, caption, picture, self._conditions, mask, *map(_stamp, self._samples)]
        )

    def __len__(self) -> int:
        return len(self._samples)

    def record(self, index: int) -> Record:
        """Returns the record of a sample.

        Raises:
            DataError: The caption cannot be read.
        """
        name, members = self._samples[index]
        picture = self._content(members[self._picture_of(members)])
        mask = None
        if self._mask:
            mask = picture if self._mask == "alpha" else self._content(members[self._mask])
        return Record(
            name,
            picture,
            self._text_of(name, members),
            {
                key: picture if ending == PICTURE else self._content(members[ending])
                for key, ending in self._conditions.items()
            },
            mask,
        )

    def _read(self, number: int, path: Path) -> list[tuple[str, dict[str, Place]]]:
        samples: dict[str, dict[str, Place]] = {}
        try:
            with tarfile.open(path, "r:") as shard:
                for member in shard:
                    name, ending = self._split(member.name)
                    if member.isfile() and name is not None:
                        place = (number, member.offset_data, member.size)
                        samples.setdefault(name, {})[ending.lower()] = place
        except (OSError, tarfile.TarError) as error:
            self._faults.append(f"{path}: {error}")
        return [(f"{path}/{name}", members) for name, members in samples.items()]

    def _check(self) -> None:
        wanted = {*self._conditions.values()} - {PICTURE}
        wanted |= {self._mask} - {"", "alpha"}
        wanted |= {self._text} if self._caption is None else set()
        for name, members in self._samples:
            missing = sorted(wanted - members.keys())
            missing += [] if self._picture_of(members) in members else [self._picture or "picture"]
            self._faults += [f"{name}: no {ending}" for ending in missing]
        if self._faults:
            raise DataError(
                f"{len(self._faults)} faults in the shards:\n{listed(self._faults)}\n",
                hint="Name the endings of members in the options of [data].",
            )

    def _picture_of(self, members: Mapping[str, Any]) -> str:
        if self._picture:
            return self._picture
        endings = (ending[1:] for ending in PICTURES if ending[1:] in members)
        return next(endings, "")

    def _text_of(self, name: str, members: Mapping[str, Place]) -> str:
        if self._caption is not None:
            return self._caption
        content = self._content(members[self._text]).decode("utf-8")
        if not self._key:
            return content.strip()
        try:
            return str(json.loads(content)[self._key])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{name}.{self._text} has no {self._key!r} in its JSON.",
                hint='Write text = "json:KEY" with a key that it has.',
            ) from error

    def _content(self, place: Place) -> bytes:
        number, start, size = place
        with self._shards[number].open(
            "rb"
        ) as file:  # opened anew, so that processes share nothing
            file.seek(start)
            return file.read(size)


def _stamp(sample: tuple[str, Mapping[str, Place]]) -> Any:
    name, members = sample
    return Path(name).name, sorted((ending, place) for ending, place in members.items())
