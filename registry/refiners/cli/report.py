"""What commands print: tables for people, JSON for programs, errors with what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from refiners.cli.door import beneath, say
from refiners.errors import Notice, RefinersError
from refiners.text import is_plain, shown, shown_cell

F = TypeVar("F", bound=Callable[..., Any])

_LONG: Final = 200
"""The rows from which a table is printed without frames, which takes a hundredth of the time."""


def json_option(command: F) -> F:
    """Adds `--json`; from then on errors are JSON too."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        is_eager=True,
        callback=_remember,
        help="Print JSON instead of tables.",
    )(command)


def _remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:
    ctx.meta["as_json"] = value
    return value


def print_json(content: Any) -> None:
    """Prints a value as JSON."""
    import json

    click.echo(_harmless(json.dumps(content, indent=2, ensure_ascii=False)))


def _harmless(text: str) -> str:
    """Writes in JSON's own escapes what its strings may hold and a terminal obeys."""
    import json

    return "".join(
        character if is_plain(character) or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    ) if not is_plain(text.replace("\n", "")) else text  # fmt: skip


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table: as wide as a terminal allows; a pipe, or a long one, gets whole lines."""
    title = shown(title)
    cells = [[shown_cell(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty() or len(cells) > _LONG:
        click.echo("\n".join(_plain(title, columns, cells)))
        return
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
    Console(file=beneath(sys.stdout)).print(table)


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


def fail(error: RefinersError, *, as_json: bool) -> None:
    """Prints an error: to stderr for people, to stdout for programs that asked for JSON."""
    if as_json:
        facts = {"code": error.code, "message": error.message.strip()}
        print_json({"error": {**facts, "hint": error.hint, "dist": error.dist}})
        return
    say(f"error: {error.message.strip()}", color="red", err=True)
    if error.hint:
        say(f"  {error.hint}", err=True)
