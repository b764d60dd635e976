"""`refiners demo`: pictures of a small model with each of its adapters, on one contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import click

from refiners.cli.picture import check_out
from refiners.cli.report import json_option, print_json, print_table


class Row(Protocol):
    """One measurement in the report of a demo."""

    @property
    def name(self) -> str:
        """The measure."""
        ...

    @property
    def value(self) -> object:
        """The measured value."""
        ...

    @property
    def note(self) -> str:
        """The method, in a few words."""
        ...


@dataclass(frozen=True)
class Api:
    """The functions of the registry that a demo may use, since plugins do not import it."""

    load_model: Callable[..., Any]
    load_adapter: Callable[..., Any]


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="demo.png",
              show_default=True, help="The contact sheet to write.")  # fmt: skip
@click.option("--model", metavar="NAME", default="",
              help="A model with a demo; the first one by default.")  # fmt: skip
@json_option
def demo(out: Path, model: str, as_json: bool) -> None:
    """Make a sheet of demo pictures and measure it.

    Makes pictures with and without each adapter, and measures what the adapters change.

    \b
    Examples:
      refiners demo
      refiners demo --out sheet.png --json
    """
    from refiners.errors import NotInstalledError, OptionError
    from refiners.installed.inventory import scan

    check_out(out)
    with_demo = [installed for installed in scan().models if installed.spec.demo]
    if not with_demo:
        raise NotInstalledError(
            "no installed model has a demo.", hint="Run pip install refiners-playground."
        )
    chosen = next((m for m in with_demo if model in ("", m.name, m.id)), None)
    if chosen is None:
        names = ", ".join(installed.name for installed in with_demo)
        raise OptionError(f"{model!r} does not have a demo.", hint=f"Models with a demo: {names}.")

    from refiners.installed.factory import import_reference
    from refiners.load import load_adapter, load_model

    run = import_reference(cast("str", chosen.spec.demo), chosen.dist)
    rows: Sequence[Row] = run(Api(load_model, load_adapter), out)
    if as_json:
        facts = [{"name": row.name, "value": row.value, "note": row.note} for row in rows]
        print_json({"out": str(out), "model": chosen.name, "rows": facts})
        return
    cells = [(row.name, _formatted(row.value), row.note) for row in rows]
    print_table(f"Measurements of {chosen.name}", ("measure", "value", "note"), cells)
    click.echo(f"wrote {out}")


def _formatted(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
