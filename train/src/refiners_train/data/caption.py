"""Tables of captions beside pictures: `metadata.jsonl` and `metadata.csv`."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refiners_train.data.data_error import DataError

TABLES = ("metadata.jsonl", "metadata.csv")
FILE = "file_name"
"""The column with the path of the picture, relative to the table."""


def read_table(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """Returns the rows of the table of a folder by the path of their picture; none without a table.

    Raises:
        DataError: There are two tables, a line is not an object, or a row names no picture.
    """
    paths = [folder / name for name in TABLES if (folder / name).is_file()]
    if not paths:
        return {}
    if len(paths) > 1:
        raise DataError(
            f"{folder} has both {TABLES[0]} and {TABLES[1]}.", hint="Take one of them away."
        )
    [path] = paths
    rows = _json_lines(path) if path.suffix == ".jsonl" else _csv_rows(path)
    table: dict[str, Mapping[str, Any]] = {}
    for number, row in rows:
        name = row.get(FILE)
        if not isinstance(name, str) or not name:
            raise DataError(
                f"{path}:{number} names no picture; its columns are {', '.join(row) or 'none'}.",
                hint=f"Give every row a {FILE}, a path from {folder}.",
            )
        table[Path(name).as_posix()] = row
    return table


def read_json_lines(path: Path) -> list[Mapping[str, Any]]:
    """Returns the objects of a file with one JSON object a line; empty lines are skipped.

    Raises:
        DataError: A line is not an object.
    """
    return [row for _, row in _json_lines(path)]


def _json_lines(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number} is not an object, but {type(row).__name__}.")
        rows.append((number, row))
    return rows


def _csv_rows(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(number, dict(row)) for number, row in enumerate(csv.DictReader(file), 2)]
