"""The record of results beside a page, and the table in the page that is made from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
import refiners
from refiners.errors import OptionError

from refiners_train.evaluate.result import Result
from refiners_train.evaluate.table import as_markdown

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"


def record_of(page: Path) -> Path:
    """Returns the file of results that belongs to a page."""
    return page.with_suffix(".json")


def read_record(path: Path) -> tuple[Result, ...]:
    """Reads recorded results; there are none if the file is missing."""
    if not path.exists():
        return ()
    return msgspec.json.decode(path.read_bytes(), type=tuple[Result, ...])


def merged(old: Iterable[Result], new: Iterable[Result]) -> tuple[Result, ...]:
    """Returns results with newer ones in place of older ones of the same adapters."""
    results = {result.adapter: result for result in (*old, *new)}
    return tuple(results[name] for name in sorted(results))


def write_record(page: Path, results: Iterable[Result]) -> None:
    """Adds results to the record of a page, and writes the table into the page.

    Raises:
        OptionError: The page is missing, or has no place for the table; nothing is written.
    """
    everything = merged(read_record(record_of(page)), results)
    text = with_table(page, everything)
    encoded = msgspec.json.format(msgspec.json.encode(everything), indent=1)
    record_of(page).write_bytes(encoded + b"\n")
    page.write_text(text, "utf-8")


def with_table(page: Path, results: Sequence[Result]) -> str:
    """Returns the text of a page with the table of some results.

    Raises:
        OptionError: The page is missing, or has no place for it.
    """
    return filled(page, as_markdown(results))


def filled(page: Path, table: str) -> str:
    """Returns the text of a page with a table between its two marks.

    Raises:
        OptionError: The page is missing, or lacks the marks.
    """
    text = page.read_text("utf-8") if page.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise OptionError(
            f"{page} has no place for a table." if text else f"{page} is not a file.",
            hint=f"Write these two lines where it belongs: {BEGIN} and {END}",
        )
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def stale(results: Iterable[Result]) -> Iterator[str]:
    """Yields the files of results that are no longer those that are installed, as `id: file`."""
    known = {
        plugin.id: plugin.spec.weights for plugin in (*refiners.models(), *refiners.adapters())
    }
    for result in results:
        for id, files in result.files.items():
            for name, digest in files.items():
                if id.startswith("pkg:"):
                    is_current = digest == _digest(id.removeprefix("pkg:"), name)
                else:
                    is_current = digest in {file.sha256 for file in known.get(id, {}).values()}
                if not is_current:
                    yield f"{result.adapter}: {id} {name}"


def _digest(package: str, name: str) -> str:
    spec = find_spec(package)
    path = Path(spec.origin or "").parent / name if spec is not None else Path(name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
