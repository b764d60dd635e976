"""`refiners doctor`: finds the problems of an installation."""

from __future__ import annotations

import click

from refiners.cli.report import json_option, print_json, print_table


@click.command()
@click.option("--quick", is_flag=True, help="Read files only, without importing plugins.")
@json_option
def doctor(quick: bool, as_json: bool) -> None:
    """Find installation problems and their fixes.

    Finds plugins that are broken, installed twice or stale, pairs whose requirements conflict,
    publishers that have changed, and leftovers of interrupted downloads.
    Imports the plugins in a separate process, so that one that exits or crashes is reported too.
    Exits with 1 if there is a problem.

    \b
    Examples:
      refiners doctor
      refiners doctor --quick --json
    """
    from refiners.cli import FUNCTIONS
    from refiners.doctor import examine

    problems = examine(is_probing=not quick, reserved=FUNCTIONS)
    if as_json:
        print_json({"problems": [problem._asdict() for problem in problems]})
    elif problems:
        rows = [(problem.kind, problem.dist, problem.what, problem.command) for problem in problems]
        print_table("Problems", ("kind", "package", "problem", "fix"), rows)
    else:
        click.echo("No problems found.")
    if problems:
        click.get_current_context().exit(1)
