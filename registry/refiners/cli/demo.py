"""`refiners demo`: every installed adapter of a small model at work, on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import click

from refiners.cli.picture import check_out
from refiners.cli.report import json_option, print_json, print_table


class Row(Protocol):
    """One measured line of a demo's report."""

    @property
    def name(self) -> str:
        """What was measured."""
        ...

    @property
    def value(self) -> object:
        """What came out."""
        ...

    @property
    def note(self) -> str:
        """How, in few words."""
        ...


@dataclass(frozen=True)
class Api:
    """What a demo may use of the registry; a plugin does not import it."""

    load_model: Callable[..., Any]
    load_adapter: Callable[..., Any]


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="demo.png",
              show_default=True, help="Where the contact sheet goes.")  # fmt: skip
@click.option("--model", default="", help="A model that has a demo; the first one by default.")
@json_option
def demo(out: Path, model: str, as_json: bool) -> None:
    """Write a sheet of pictures made with and without adapters, and measure the difference.

    \b
    Examples:
      refiners demo
      refiners demo --out sheet.png --json
    """
    from refiners.errors import NotInstalledError, OptionError
    from refiners.installed.inventory import scan

    check_out(out)
    with_demo = [one for one in scan().models if one.spec.demo]
    if not with_demo:
        raise NotInstalledError(
            "no installed model has a demo.", hint="Run pip install refiners-playground."
        )
    names = ", ".join(one.name for one in with_demo)
    chosen = next((one for one in with_demo if model in ("", one.name, one.id)), None)
    if chosen is None:
        raise OptionError(f"{model!r} has no demo.", hint=f"These have one: {names}.")

    from refiners.installed.factory import import_reference
    from refiners.load import load_adapter, load_model

    run = import_reference(cast("str", chosen.spec.demo), chosen.dist)
    rows: Sequence[Row] = run(Api(load_model, load_adapter), out)
    if as_json:
        facts = [{"name": row.name, "value": row.value, "note": row.note} for row in rows]
        print_json({"out": str(out), "model": chosen.name, "rows": facts})
        return
    cells = [(row.name, _said(row.value), row.note) for row in rows]
    print_table(f"{chosen.name}: what was measured", ("measure", "value", "note"), cells)
    click.echo(f"wrote {out}")


def _said(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
