"""A folder of pictures: captions in files beside them or in a table, conditions, masks."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from refiners_train.data.caption import TABLES, read_table
from refiners_train.data.data_error import DataError, listed
from refiners_train.data.fingerprint import fingerprint_of
from refiners_train.data.record import PICTURE, PICTURES, File, Record

CAPTIONS = (".txt", ".caption")
"""The endings of files with the caption of the picture of the same name."""
_REPEATED: Final = re.compile(r"(\d+)_(.+)")
"""The name of a folder of kohya's scripts: repeats, and the caption of pictures without one."""


class Folder:
    """Pictures of a folder and the folders in it, sorted by path.

    The caption of `a.png` is in `a.txt` or `a.caption`, or in the column `text` of `metadata.jsonl`
    or `metadata.csv`, whose `file_name` is `a.png`. Folders named `10_a dog`, as kohya's scripts
    have them, repeat their pictures 10 times, captioned `a dog` where nothing else is.

    Args:
        path: The folder.
        caption: The caption of pictures without one; None refuses them.
        column: The column of the table with captions.
        conditions: For each input of the adapter, its column in the table, the folder in `path`
            with pictures of the same names, or `picture` for the picture itself.
        mask: `alpha` for the opacity of the pictures themselves, or a column, a folder, or the end
            of names: with `-mask` the mask of `a.png` is `a-mask.png`.

    Raises:
        DataError: The folder does not exist, or captions, conditions or masks are missing; the
            message names every file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        caption: str | None = None,
        column: str = "text",
        conditions: Mapping[str, str] | None = None,
        mask: str = "",
    ) -> None:
        self.path: Final = Path(path)
        if not self.path.is_dir():
            raise DataError(
                f"{self.path} is not a folder.", hint='Write source = "folder:PATH" in [data].'
            )
        self._table = read_table(self.path)
        self._caption, self._column = caption, column
        self._conditions, self._mask = dict(conditions or {}), mask
        self._faults: list[str] = []
        columns = next(iter(self._table.values()), {})
        places = {*self._conditions.values(), mask} - {"", "alpha", *columns}
        self._folders: Final = {place for place in places if (self.path / place).is_dir()}
        self._records: Final = [
            record for name in self._names() for record in self._records_of(name)
        ]
        if self._faults:
            raise DataError(
                f"{len(self._faults)} faults in {self.path}:\n{listed(self._faults)}\n",
                hint=f"Captions are files such as a.txt beside a.png, a column {column!r} in "
                f'{TABLES[0]}, or caption = "..." for all.',
            )
        if not self._records:
            raise DataError(
                f"{self.path} has no pictures.", hint=f"Pictures end with {', '.join(PICTURES)}."
            )

    @property
    def fingerprint(self) -> str:
        """Changes with the names and contents of files and with captions; reads every file once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digests: dict[Path, str] = {}
        return fingerprint_of(
            [record.text, *(self._stamp(file, digests) for file in _files(record))]
            for record in self._records
        )

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        """Returns the record of a picture."""
        return self._records[index]

    def _names(self) -> list[str]:
        if self._table:
            missing = [name for name in self._table if not (self.path / name).is_file()]
            self._faults += [
                f"{name}: the table names it, and it does not exist" for name in missing
            ]
            return [name for name in self._table if name not in missing]
        paths = [path for path in self.path.rglob("*") if path.suffix.lower() in PICTURES]
        names = sorted(path.relative_to(self.path).as_posix() for path in paths)
        apart = tuple(f"{place}/" for place in self._folders)
        return [name for name in names if not name.startswith(apart) and not self._is_mask(name)]

    def _is_mask(self, name: str) -> bool:
        is_suffix = self._mask not in ("", "alpha", *self._folders)
        return is_suffix and Path(name).stem.endswith(self._mask)

    def _records_of(self, name: str) -> Iterable[Record]:
        path = self.path / name
        row = self._table.get(name, {})
        repeated = _REPEATED.fullmatch(path.parent.name) if path.parent != self.path else None
        text = self._text_of(path, row)
        if text is None:
            text = repeated[2] if repeated else self._caption
        if text is None:
            self._faults.append(f"{name}: no caption")
            return
        record = Record(
            str(path),
            path,
            text,
            {key: self._value(name, row, place) for key, place in self._conditions.items()},
            self._mask_of(name, row),
        )
        yield from [record] * (int(repeated[1]) if repeated else 1)

    def _text_of(self, path: Path, row: Mapping[str, Any]) -> str | None:
        if isinstance(row.get(self._column), str):
            return row[self._column]
        for ending in CAPTIONS:
            if (beside := path.with_suffix(ending)).is_file():
                return beside.read_text("utf-8").strip()
        return None

    def _value(self, name: str, row: Mapping[str, Any], place: str) -> File | Sequence[float]:
        if place == PICTURE:
            return self.path / name
        if place in row:
            value = row[place]
            return self._existing(name, value) if isinstance(value, str) else value
        return self._existing(name, f"{place}/{name}")

    def _mask_of(self, name: str, row: Mapping[str, Any]) -> File | None:
        if self._mask == "alpha":
            return self.path / name
        if not self._mask:
            return None
        if self._mask in row:
            return self._existing(name, str(row[self._mask]))
        if self._mask in self._folders:
            return self._existing(name, f"{self._mask}/{name}")
        return self._existing(name, Path(name).with_stem(Path(name).stem + self._mask).as_posix())

    def _existing(self, name: str, wanted: str) -> Path:
        """Returns the path of a file, whatever its picture's ending is."""
        path = self.path / wanted
        candidates = [path, *(path.with_suffix(ending) for ending in PICTURES)]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        self._faults.append(f"{name}: {wanted} does not exist")
        return path

    def _stamp(self, file: Any, digests: dict[Path, str]) -> Any:
        if not isinstance(file, Path):
            return file
        if file not in digests:
            digests[file] = hashlib.sha256(file.read_bytes()).hexdigest()
        return file.relative_to(self.path).as_posix(), digests[file]


def _files(record: Record) -> list[Any]:
    return [record.picture, record.mask, *record.conditions.values()]
