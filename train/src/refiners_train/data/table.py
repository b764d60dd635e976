"""Pictures of a dataset of the `datasets` library: on the Hub at a commit, or on this disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from refiners_train.data.data_error import DataError
from refiners_train.data.extra import imported
from refiners_train.data.fingerprint import fingerprint_of
from refiners_train.data.record import PICTURE, Record
from refiners_train.data.source_check import AT_COMMIT


def open_dataset(name: str, split: str) -> tuple[Any, str]:
    """Returns a dataset and its fingerprint.

    Args:
        name: `org/name@commit` on the Hub, or a folder or file: one that `save_to_disk` wrote, or
            one of Parquet, JSON lines, CSV or pictures.
        split: The split, such as `train`.

    Raises:
        DataError: The library is not installed, the name has no commit, or it cannot be read.
    """
    library = imported("datasets", extra="datasets")
    path = Path(name)
    try:
        if path.exists():
            return _local(library, path, split), _fingerprint_of_files(path, split)
        if AT_COMMIT.fullmatch(name) is None:
            raise DataError(
                f"{name!r} is neither a path nor a dataset at a commit.",
                hint=f'Write "hf:{name.partition("@")[0]}@COMMIT", with the 40 digits of a commit: '
                "without one the examples may change between two runs.",
            )
        repository, commit = name.split("@")
        dataset = library.load_dataset(repository, revision=commit, split=split)
        return dataset, fingerprint_of([name, split, len(dataset)])
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the dataset {name} cannot be read: {str(error).splitlines()[0]}",
            hint="Look at its name, its split and your connection.",
        ) from error


def column_of(dataset: Any, name: str, purpose: str) -> str:
    """Returns the name of a column that exists.

    Raises:
        DataError: The dataset has no such column.
    """
    if name not in dataset.column_names:
        raise DataError(
            f"the dataset has no column {name!r} for {purpose}; it has "
            f"{', '.join(dataset.column_names)}.",
            hint="Name the column in the options of [data].",
        )
    return name


class Table:
    """Rows of a dataset as records.

    Args:
        name: The dataset, as for `open_dataset`.
        split: The split.
        picture: The column with pictures.
        text: The column with captions; a list of captions counts with its first.
        caption: The caption of all pictures, in place of a column.
        conditions: For each input of the adapter, its column; `picture` for the picture itself.
        mask: The column with masks, or `alpha`; empty for none.

    Raises:
        DataError: The dataset cannot be read, or has no such column.
    """

    def __init__(
        self,
        name: str,
        *,
        split: str = "train",
        picture: str = "image",
        text: str = "text",
        caption: str | None = None,
        conditions: Mapping[str, str] | None = None,
        mask: str = "",
    ) -> None:
        dataset, files = open_dataset(name, split)
        self._name: Final = name
        self._picture: Final = column_of(dataset, picture, "pictures")
        self._caption: Final = caption
        self._text: Final = column_of(dataset, text, "captions") if caption is None else ""
        self._conditions: Final = dict(conditions or {})
        self._mask: Final = mask
        if mask not in ("", "alpha"):
            column_of(dataset, mask, "masks")
        for key, column in self._conditions.items():
            if column != PICTURE:
                column_of(dataset, column, f"the condition {key!r}" if key else "conditions")
        self._rows: Final = _undecoded(dataset)
        self.fingerprint: Final = fingerprint_of(
            [files, picture, text, caption, self._conditions, mask]
        )

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        """Returns the record of a row.

        Raises:
            DataError: The row has no picture or no caption.
        """
        row, name = self._rows[index], f"row {index} of {self._name}"
        picture: Any = _file(row[self._picture])
        if not _is_picture(picture):
            raise DataError(f"{name} has no picture.", hint="Take the row out.")
        text = self._caption if self._caption is not None else row[self._text]
        text = text[0] if isinstance(text, list) and text else text
        if not isinstance(text, str):
            raise DataError(f"{name} has no caption.", hint='Set caption = "..." for all.')
        mask: Any = None
        if self._mask:
            mask = picture if self._mask == "alpha" else _file(row[self._mask])
        return Record(
            name,
            picture,
            text,
            {
                key: picture if column == PICTURE else _file(row[column])
                for key, column in self._conditions.items()
            },
            mask,
        )


def _undecoded(dataset: Any) -> Any:
    """Returns a dataset whose pictures are contents of files: decoded ones would lose their EXIF,
    and a damaged one could not be named."""
    library = imported("datasets", extra="datasets")
    for name, feature in dataset.features.items():
        if isinstance(feature, library.Image):
            dataset = dataset.cast_column(name, library.Image(decode=False))
    return dataset


def _file(value: Any) -> Any:
    """Returns a picture that is not decoded, as content or path; other values as they are."""
    if isinstance(value, dict) and {"bytes", "path"} <= value.keys():
        content, path = value["bytes"], value["path"]
        return Path(path) if content is None else content
    return value


def _is_picture(value: Any) -> bool:
    return value is not None and not isinstance(value, str | list | int | float)


def _local(library: Any, path: Path, split: str) -> Any:
    if (path / "state.json").is_file():
        return library.load_from_disk(str(path))
    if (path / "dataset_dict.json").is_file():
        return library.load_from_disk(str(path))[split]
    if path.is_dir():
        return library.load_dataset(str(path), split=split)
    kind = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}.get(
        path.suffix
    )
    if kind is None:
        raise DataError(
            f"{path} is not a dataset.", hint="Files end with .parquet, .jsonl, .json or .csv."
        )
    return library.load_dataset(kind, data_files=str(path), split=split)


def _fingerprint_of_files(path: Path, split: str) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    known = [file for file in files if not file.name.startswith("cache-")]
    return fingerprint_of([split, *((file.name, file.stat().st_size) for file in known)])
