"""Texts for language models: files of texts, JSON lines, datasets."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from refiners_train.data.caption import read_json_lines
from refiners_train.data.data_error import DataError, listed
from refiners_train.data.example import TextExample
from refiners_train.data.fingerprint import fingerprint_of
from refiners_train.data.table import open_dataset

SCHEMES: Final = ("folder", "jsonl", "hf", "datasets")
FORMS: Final = "`text`, `prompt` and `completion`, or `messages`"


class Texts:
    """Examples from rows, each with `text`, `prompt` and `completion`, or `messages`.

    Args:
        rows: The rows.
        fingerprint: A text that changes with the rows.
        name: What errors call the rows.
        columns: The columns in place of the usual ones, such as `{"text": "content"}`.

    Raises:
        DataError: The source is empty, or a row has none of these forms; the message names all.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        fingerprint: str,
        name: str,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.columns: Final = dict(columns or {})
        self.fingerprint: Final = fingerprint_of([fingerprint, self.columns])
        self._rows: Final = rows
        if not len(rows):
            raise DataError(f"{name} has no texts.", hint="Look at `source` in [data].")
        faults = [
            f"{name}, row {number}: {fault}"
            for number, row in enumerate(rows)
            if (fault := self._fault(row))
        ]
        if faults:
            raise DataError(
                f"{len(faults)} of {len(rows)} rows cannot be trained on:\n{listed(faults)}\n",
                hint=f"A row has {FORMS}.",
            )

    def __len__(self) -> int:
        return len(self._rows)

    def example(self, index: int, epoch: int) -> TextExample:
        """Returns the example of a row, the same in every epoch."""
        row = self._rows[index]
        messages = self._value(row, "messages")
        if messages is not None:
            return TextExample(messages=messages)
        prompt = self._value(row, "prompt")
        if prompt is not None:
            return TextExample(prompt + self._value(row, "completion"), len(prompt))
        return TextExample(self._value(row, "text"))

    def _value(self, row: Mapping[str, Any], name: str) -> Any:
        return row.get(self.columns.get(name, name))

    def _fault(self, row: Mapping[str, Any]) -> str:
        messages = self._value(row, "messages")
        if messages is not None:
            is_chat = isinstance(messages, list) and all(
                isinstance(message, Mapping) and {"role", "content"} <= message.keys()
                for message in messages
            )
            if not is_chat or not any(m["role"] == "assistant" for m in messages):
                return "its messages have no answer of the assistant"
            return ""
        prompt, completion = self._value(row, "prompt"), self._value(row, "completion")
        if prompt is not None or completion is not None:
            is_pair = isinstance(prompt, str) and isinstance(completion, str) and completion
            return "" if is_pair else "its prompt or its completion is missing"
        text = self._value(row, "text")
        return "" if isinstance(text, str) and text else f"it has {', '.join(row) or 'nothing'}"


def is_texts(source: str) -> bool:
    """Whether a source of a configuration has a scheme of texts."""
    return source.partition(":")[0] in SCHEMES and ":" in source


def open_texts(
    source: str, *, split: str = "train", columns: Mapping[str, str] | None = None
) -> Texts:
    """Opens the texts that a configuration names.

    Args:
        source: `folder:PATH` of files that end with `.txt`, one text each; `jsonl:PATH`; or
            `hf:org/name@commit` and `datasets:PATH`.
        split: The split of a dataset.
        columns: The columns in place of the usual ones.

    Raises:
        DataError: The texts cannot be read.
    """
    scheme, _, place = source.partition(":")
    if scheme in ("hf", "datasets"):
        dataset, files = open_dataset(place, split)
        return Texts(dataset, files, place, columns)
    path = Path(place)
    if scheme == "jsonl":
        if not path.is_file():
            raise DataError(f"{path} does not exist.", hint="Write an existing path after jsonl:.")
        rows = read_json_lines(path)
        return Texts(rows, hashlib.sha256(path.read_bytes()).hexdigest(), str(path), columns)
    files = sorted(path.rglob("*.txt"))
    if not files:
        raise DataError(
            f"{path} has no files of texts.", hint="Write the path of a folder with .txt files."
        )
    rows = [{"text": file.read_text("utf-8")} for file in files]
    contents = fingerprint_of([row["text"] for row in rows])
    return Texts(rows, contents, str(path))
