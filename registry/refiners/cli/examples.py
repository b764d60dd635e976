"""`refiners examples`: the examples that packages ship, listed, printed and run."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refiners.cli.completion import complete_package
from refiners.cli.output import say
from refiners.cli.report import json_option, print_json, print_table
from refiners.errors import AmbiguousNameError, OptionError, UnknownNameError
from refiners.host.shell import quoted
from refiners.host.text import shown

if TYPE_CHECKING:
    from refiners.installed.example import Example


@click.command()
@click.argument("name", required=False, shell_complete=complete_package)
@click.option("--run", "runs", metavar="EXAMPLE", help="Run an example.")
@click.option("--show", "shows", metavar="EXAMPLE", help="Print the script of an example.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False),
              help="Write the pictures of the example that runs to this file.")  # fmt: skip
@json_option
def examples(
    name: str | None, runs: str | None, shows: str | None, out: Path | None, as_json: bool
) -> None:
    """List, print or run the examples of packages.

    NAME is a package, or an adapter, a model or a preprocessor, for the examples that load it.
    Without one, lists the examples of all packages. Listing and printing run nothing.

    \b
    Examples:
      refiners examples
      refiners examples refiners-freeu
      refiners examples freeu --show freeu
      refiners examples freeu --run freeu --out freeu.png
    """
    if runs is not None and shows is not None:
        raise click.UsageError("--run and --show exclude each other.")
    if out is not None and runs is None:
        raise click.UsageError("--out needs --run EXAMPLE.")
    offered = _offered(name)
    if runs is not None:
        _run(_chosen(runs, offered, name), out, as_json=as_json)
    elif shows is not None:
        _show(_chosen(shows, offered, name), as_json=as_json)
    elif as_json:
        print_json({"examples": [_facts(example) for example in offered]})
    elif offered:
        rows = [(e.name, e.title, ", ".join(e.loads), _owner(e)) for e in offered]
        print_table("Examples", ("name", "title", "loads", "package"), rows)
    else:
        click.echo(f"{name} has no examples." if name else "No installed package has examples.")


def _offered(name: str | None) -> Sequence[Example]:
    """Returns the examples of a package, or those that load an adapter, a model or the like.

    Raises:
        UnknownNameError, AmbiguousNameError, NotInstalledError: The name leads to no package.
    """
    from refiners.choose.lookup import look_up
    from refiners.installed.distribution import canonical
    from refiners.installed.example import examples as installed_examples
    from refiners.installed.inventory import scan

    everything = installed_examples()
    if name is None:
        return everything
    inventory = scan()
    dists = {plugin.dist for plugin in inventory.plugins} | {example.dist for example in everything}
    if canonical(name) in dists:
        return [example for example in everything if example.dist == canonical(name)]
    plugin = look_up(name, inventory.plugins, inventory.broken)
    names = (plugin.name, plugin.id, *plugin.spec.aliases)
    loading = [example for example in everything if {*names} & {*example.loads}]
    return loading or [example for example in everything if example.dist == plugin.dist]


def _chosen(wanted: str, offered: Sequence[Example], name: str | None) -> Example:
    matches = [example for example in offered if wanted in (example.name, example.id)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = [example.id for example in matches]
        raise AmbiguousNameError(
            f"{len(ids)} packages have an example {wanted!r}: {' and '.join(ids)}.",
            hint=f"Name one of them, such as {ids[0]}.",
        )
    of = f"{name} has" if name else "the installed packages have"
    names = [example.name for example in offered]
    command = quoted("refiners", "examples", *([name] if name else []))
    near = get_close_matches(wanted, names, 1)
    raise UnknownNameError(
        f"no example is called {wanted!r}; {of} {', '.join(names) or 'none'}.",
        hint=f"Did you mean {near[0]}?" if near else f"{command} lists them.",
    )


def _show(example: Example, *, as_json: bool) -> None:
    text = shown(example.path.read_text("utf-8", errors="replace"))
    if as_json:
        print_json(_facts(example) | {"script": text})
    else:
        click.echo(text.rstrip("\n"))


def _run(example: Example, out: Path | None, *, as_json: bool) -> None:
    """Runs an example after a line that names its package and file.

    Raises:
        OptionError: The pictures cannot be written to `out`.
    """
    from refiners.cli.picture import check_out, replacing
    from refiners.exhibit import run_example

    if out is not None:
        check_out(out)
    say(f"running {example.name} of {_owner(example)}: {example.path}", err=True)
    exhibit = run_example(example)
    sheet = exhibit.sheet()
    if out is not None and sheet is None:
        raise OptionError(
            f"{example.name} makes no pictures.", hint="Run it without --out: it prints its result."
        )
    if out is not None and sheet is not None:
        with replacing(out) as path:
            sheet.save(path)
    if as_json:
        ran = {"seconds": exhibit.seconds, "pictures": len(exhibit.pictures), "out": out}
        print_json(_facts(example) | ran)
        return
    made = f"wrote {out}" if out else ""
    if sheet is not None and out is None:
        command = quoted("refiners", "examples", example.dist, "--run", example.name)
        made = f"to keep its pictures: {command} --out {quoted(f'{example.name}.png')}"
    say(f"{exhibit.seconds:.1f} s{'; ' if made else ''}{made}", err=True)


def _facts(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "name": example.name,
        "dist": example.dist,
        "version": example.version,
        "title": example.title,
        "loads": list(example.loads),
        "path": example.path,
        "picture": example.picture,
        "faults": list(example.faults()),
    }


def _owner(example: Example) -> str:
    return f"{example.dist} {example.version}"
