"""`refiners doctor`: finds what is wrong with an installation."""

from __future__ import annotations

import click

from refiners.cli.report import json_option, print_json, print_table


@click.command()
@click.option("--quick", is_flag=True, help="Read only; import no plugin, not even elsewhere.")
@json_option
def doctor(quick: bool, as_json: bool) -> None:
    """Look for broken, doubled and stale plugins; name the culprit and what removes it.

    Plugins are imported in a process of their own, so that one that raises, exits or crashes is
    only reported. Ends with 1 if something is wrong.

    \b
    Examples:
      refiners doctor
      refiners doctor --quick --json
    """
    from refiners.doctor import examine

    problems = examine(is_probing=not quick)
    if as_json:
        print_json({"problems": [one._asdict() for one in problems]})
    elif problems:
        rows = [(one.kind, one.dist, one.what, one.command) for one in problems]
        print_table("Problems", ("what", "package", "why", "what ends it"), rows)
    else:
        click.echo("All is well.")
    if problems:
        click.get_current_context().exit(1)
