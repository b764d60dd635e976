"""Finds what a recipe names by hash: pictures and files, given by the caller or lying near by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from refiners.errors import OptionError
from refiners.hub.receipts import Receipts
from refiners.recipe.picture import open_picture


class Missing(NamedTuple):
    """A piece of a recipe that is not on this machine."""

    name: str
    """The name under which the caller passes it."""
    what: str
    """The piece, such as `the picture edges.png, sha256 ab12cd34...`."""
    hint: str = ""
    """The next step; empty if the caller passes it by its name."""


class InputCondition(NamedTuple):
    """The arguments of `Condition` for one of several inputs that has a scale of its own."""

    value: Any
    scale: Any
    preprocess: Any = False


class Supply:
    """The pictures, tensors and files for a recipe.

    Args:
        given: The values of the caller by the names in the recipe; paths are opened.
        folders: The folders in which pictures and files of the recorded names are looked for.
        receipts: The files that were verified on this machine, by hash.
    """

    def __init__(
        self, given: Mapping[str, Any], folders: Iterable[Path], receipts: Receipts
    ) -> None:
        self.given = dict(given)
        self.folders = tuple(dict.fromkeys(folders))
        self.receipts = receipts
        self.missing: list[Missing] = []
        self.notes: list[str] = []
        self.used: set[str] = set()

    def value(self, name: str, record: Any, depth: int = 0) -> Any:
        """Returns the value that a recipe records; None if it is missing, which is noted.

        Args:
            name: The name of the value, such as `controlnet-canny` or `instantid.face`.
            record: A number, a text, or the record of a picture, a tensor or several values.
            depth: The number of lists and tables around the record.
        """
        is_condition = isinstance(record, dict) and "value" in record
        if name in self.given and not is_condition:
            return self._given(name, record)
        if depth > 8:
            raise OptionError(f"{name} of the recipe is nested too deeply.", hint="Pass it.")
        if isinstance(record, list):
            items = enumerate(cast("list[Any]", record), 1)
            return [self.value(f"{name}.{i}", item, depth + 1) for i, item in items]
        if not isinstance(record, dict):
            return record
        table = cast("dict[str, Any]", record)
        if isinstance(inputs := table.get("inputs"), dict):
            items = cast("dict[str, Any]", inputs).items()
            return {key: self.value(f"{name}.{key}", item, depth + 1) for key, item in items}
        if is_condition:
            value = self.value(name, table["value"], depth + 1)
            preprocess = self.preprocess(name, table.get("preprocess", False))
            return InputCondition(value, table.get("scale", 1.0), preprocess)
        if isinstance(table.get("picture"), str):
            for path in self._named(table.get("name")):
                image = _opened(path)
                if image is not None and _digest(image) == table["picture"]:
                    return image
        self.missing.append(Missing(name, described(table)))
        return None

    def preprocess(self, name: str, record: Any) -> Any:
        """Returns a recorded preprocessor; False if it is a missing function, which is noted.

        Args:
            name: The name of the value that it makes.
            record: A name, true, or the name of a function as `{"object": name}`.
        """
        if not isinstance(record, dict):
            return record
        name = f"{name}.preprocess"
        if name in self.given:
            self.used.add(name)
            return self.given[name]
        function = cast("dict[str, Any]", record).get("object", "")
        what = f"the preprocessor {function}, a function".replace(" ,", ",")
        hint = f'Pass the function: conditions={{"{name}": function}}.'
        self.missing.append(Missing(name, what, hint))
        return False

    def file(self, name: str, file: str, sha256: str) -> Path | None:
        """Returns the path of a file of the user's; None if it is missing, which is noted.

        Args:
            name: The name of the adapter or the model.
            file: The name of the file.
            sha256: The hash of the file; empty if it is not known.
        """
        if name in self.given:
            self.used.add(name)
            path = Path(self.given[name])
            if sha256 and path.is_file() and not self._has(path, sha256):
                self.notes.append(f"{path} is not the {file} of the recipe: its hash differs")
            return path
        if sha256 and (known := self.receipts.find(sha256)) is not None:
            return known
        for path in self._named(file):
            if self._has(path, sha256):
                return path
        self.missing.append(Missing(name, f"the file {file}{_short(sha256)}"))
        return None

    @property
    def unused(self) -> list[str]:
        """The names of given values that the recipe does not have."""
        return sorted(self.given.keys() - self.used)

    def _given(self, name: str, record: Any) -> Any:
        self.used.add(name)
        value = self.given[name]
        is_file = isinstance(record, dict) and "path" in record
        if isinstance(value, str | os.PathLike) and isinstance(record, dict | list):
            value = value if is_file else open_picture(Path(value))
        from refiners_core.picture.digest import digest

        known = next(iter(hashes_of(record)), "")
        if known and known not in hashes_of(digest(value)):
            self.notes.append(f"{name} is not the one of the recipe: its hash differs")
        return value

    def _named(self, name: object) -> Iterator[Path]:
        """Yields the files of a name, without any folder of the recipe, in the folders."""
        if isinstance(name, str) and name and Path(name).name == name:
            paths = (folder / name for folder in self.folders)
            yield from (path for path in paths if path.is_file())

    def _has(self, path: Path, sha256: str) -> bool:
        try:
            return bool(sha256) and self.receipts.hash_of(path.absolute()).startswith(sha256)
        except OSError:
            return False


def hashes_of(record: Any) -> set[str]:
    """Returns all hashes in the record of a value."""
    if isinstance(record, list):
        return {item for part in cast("list[Any]", record) for item in hashes_of(part)}
    if not isinstance(record, dict):
        return set()
    table = cast("dict[str, Any]", record)
    if isinstance(inputs := table.get("inputs"), dict):
        return {
            item for part in cast("dict[str, Any]", inputs).values() for item in hashes_of(part)
        }
    if "value" in table:
        return hashes_of(table["value"])
    return {table[key] for key in ("picture", "tensor") if isinstance(table.get(key), str)}


def described(record: Mapping[str, Any]) -> str:
    """Returns the record of a picture, a tensor or an object in words."""
    if isinstance(digest := record.get("picture"), str):
        return f"the picture {record.get('name', '')}".rstrip() + _short(digest)
    if isinstance(digest := record.get("tensor"), str):
        return f"a tensor {record.get('shape', '')}{_short(digest)}"
    if isinstance(name := record.get("path"), str):
        return f"the file {name}"
    return f"a value of type {record.get('object', 'unknown')}"


def _short(sha256: str) -> str:
    return f", sha256 {sha256[:12]}..." if sha256 else ""


def _opened(path: Path) -> Any:
    try:
        return open_picture(path)
    except OptionError:
        return None


def _digest(image: Any) -> str:
    from refiners_core.picture.digest import picture_digest

    return picture_digest(image)
