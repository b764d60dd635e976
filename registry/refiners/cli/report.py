"""What commands print: tables for people, JSON for programs, errors with what to do."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any, Final, TypeVar, cast

import click

from refiners.cli.output import is_unicode, json_stream, say, width
from refiners.cli.safe_stream import unwrapped
from refiners.errors import Notice
from refiners.host.text import is_plain, shown, shown_cell

F = TypeVar("F", bound=Callable[..., Any])

_READABLE: Final = 20
"""Columns of a terminal for each column of a table, below which its words would be torn."""
_LONG: Final = 200
"""The rows from which a table is printed without frames, which takes a hundredth of the time."""


def json_option(command: F) -> F:
    """Adds `--json`; from then on errors are JSON too."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")(
        command
    )


def print_json(content: Any) -> None:
    """Prints a value as JSON that every parser takes, whatever the encoding of the output is."""
    import json

    stream = json_stream()
    if stream is None:
        return
    text = json.dumps(
        _portable(content), indent=2, ensure_ascii=not is_unicode(stream), allow_nan=False
    )
    click.echo(_harmless(text), file=stream)


def _harmless(text: str) -> str:
    """Writes in JSON's own escapes what its strings may hold and a terminal obeys."""
    import json

    return "".join(
        character if is_plain(character) or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    ) if not is_plain(text.replace("\n", "")) else text  # fmt: skip


def _portable(value: Any) -> Any:
    """Returns a value in what JSON has: numbers that are not finite, and the rest, become texts."""
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_portable(str(key)): _portable(item) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_portable(item) for item in cast("Iterable[Any]", value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    # a byte of a path that is not UTF-8 is a lone surrogate, which few parsers take
    return str(value).encode("utf-8", "backslashreplace").decode()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table as wide as the terminal allows; a narrow one gets a block for each row.

    A pipe, or a long table, gets whole lines.
    """
    title = shown(title)
    cells = [[shown_cell(str(cell)) for cell in row] for row in rows]
    columns_there = width()
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    whole = sum(widths) + 2 * len(widths)
    if columns_there is None or len(cells) > _LONG:
        click.echo("\n".join(_plain(title, columns, cells)))
    elif whole > columns_there and columns_there < _READABLE * len(widths):
        click.echo("\n".join(_blocks(title, columns, cells, columns_there)))
    elif not sys.stdout.isatty():
        click.echo("\n".join(_plain(title, columns, cells)))
    else:
        _print_framed(title, columns, cells)


def _print_framed(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.show_header = any(columns)
    for column in columns:
        table.add_column(column, overflow="fold")
    table.columns[0].no_wrap = True
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: square brackets are no markup
    Console(file=unwrapped(sys.stdout)).print(table)


def _blocks(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], most: int
) -> Iterator[str]:
    """Yields each row as a name with its cells below it, wrapped between words."""
    yield title
    for first, *others in rows:
        yield f"  {first}"
        for column, cell in zip(columns[1:], others, strict=True):
            if cell:
                label = f"{column}: " if column else ""
                yield from wrap(
                    f"{label}{cell}",
                    max(most, 24),
                    initial_indent=" " * 4,
                    subsequent_indent=" " * 6,
                    break_long_words=False,  # a path or a command stays one that can be copied
                    break_on_hyphens=False,
                )
    yield ""


def _plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    lines = [columns, *rows] if any(columns) else rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    yield title
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield f"  {'  '.join(padded)}".rstrip()
    yield ""


@contextmanager
def notices() -> Generator[None]:
    """Prints what should be known, a line each on stderr; other warnings go their own way."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                say(f"note: {message}", color="yellow", err=True)
            else:
                others(message, category, *where, **more)

        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield
