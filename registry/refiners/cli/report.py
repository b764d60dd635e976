"""Prints the results of commands: tables, JSON and notices."""

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
from refiners.errors import Notice, PublisherNotice
from refiners.host.text import is_plain, shown, shown_cell

F = TypeVar("F", bound=Callable[..., Any])

_READABLE: Final = 20
"""The width per column of a table, in characters, below which words would be broken."""
_LONG: Final = 200
"""The number of rows above which a table has no frame, which is a hundred times faster."""


def json_option(command: F) -> F:
    """Adds the option `--json`, with which errors are JSON too."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(content: Any) -> None:
    """Prints a value as JSON that every parser reads, in any encoding of the output."""
    import json

    stream = json_stream()
    if stream is None:
        return
    text = json.dumps(
        _portable(content), indent=2, ensure_ascii=not is_unicode(stream), allow_nan=False
    )
    click.echo(_escaped(text), file=stream)


def _escaped(text: str) -> str:
    """Writes the characters that a terminal interprets as escapes of JSON."""
    import json

    return "".join(
        character if is_plain(character) or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    ) if not is_plain(text.replace("\n", "")) else text  # fmt: skip


def _portable(value: Any) -> Any:
    """Converts a value to types of JSON; infinite numbers and other types become strings."""
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_portable(str(key)): _portable(item) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_portable(item) for item in cast("Iterable[Any]", value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    # a path that is not UTF-8 has lone surrogates, which few parsers read
    return str(value).encode("utf-8", "backslashreplace").decode()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table in the width of the terminal; on a narrow one, a block for each row.

    Lines to a pipe, and of a long table, have any width.
    """
    title = shown(title)
    cells = [[shown_cell(str(cell)) for cell in row] for row in rows]
    terminal_width = width()
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    whole = sum(widths) + 2 * len(widths)
    if terminal_width is None or len(cells) > _LONG:
        click.echo("\n".join(_plain(title, columns, cells)))
    elif whole > terminal_width and terminal_width < _READABLE * len(widths):
        click.echo("\n".join(_blocks(title, columns, cells, terminal_width)))
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
        table.add_row(
            *(Text(cell) for cell in row)
        )  # Text() because square brackets are not markup
    Console(file=unwrapped(sys.stdout)).print(table)


def _blocks(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[str]:
    """Yields each row as a name with its other cells below it, wrapped between words."""
    yield title
    for first, *others in rows:
        yield f"  {first}"
        for column, cell in zip(columns[1:], others, strict=True):
            if cell:
                label = f"{column}: " if column else ""
                yield from wrap(
                    f"{label}{cell}",
                    max(width, 24),
                    initial_indent=" " * 4,
                    subsequent_indent=" " * 6,
                    break_long_words=False,  # so that paths and commands can be copied
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
    """Prints each `Notice` as a line on stderr; other warnings are shown as usual."""
    with warnings.catch_warnings():
        show_other = warnings.showwarning
        once: set[str] = set()

        def show(
            message: Warning | str, category: type[Warning], *where: Any, **options: Any
        ) -> None:
            if issubclass(category, PublisherNotice):
                if str(message) in once:  # one package may have several adapters in use
                    return
                once.add(str(message))
            if issubclass(category, Notice):
                say(f"note: {message}", color="yellow", err=True)
            else:
                show_other(message, category, *where, **options)

        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield
