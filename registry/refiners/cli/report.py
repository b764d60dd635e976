"""What commands print: tables for people, JSON for programs, errors with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from refiners.errors import RefinersError

F = TypeVar("F", bound=Callable[..., Any])


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
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table, as wide as the terminal allows; a pipe gets whole lines."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.show_header = any(columns)
    for column in columns:
        table.add_column(column, overflow="fold")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: square brackets are no markup
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def fail(error: RefinersError, *, as_json: bool) -> None:
    """Prints an error: to stderr for people, to stdout for programs that asked for JSON."""
    if as_json:
        facts = {"code": error.code, "message": error.message.strip()}
        print_json({"error": {**facts, "hint": error.hint, "dist": error.dist}})
        return
    click.secho(f"error: {error.message.strip()}", fg="red", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
