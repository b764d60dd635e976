"""`refiners new` and `refiners validate`, for authors of adapters and base models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from refiners.authoring.scaffold import KINDS, LICENSES, MODEL, create
from refiners.cli.report import json_option, print_json, print_table
from refiners.host.shell import quoted
from refiners.manifest.schema import MANIFESTS, KindName, json_schema

F = TypeVar("F", bound=Callable[..., Any])


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--schema", type=click.Choice(tuple(MANIFESTS)),
              help="Print the JSON Schema of a manifest, for editors, and check nothing.",
)  # fmt: skip
@click.option("--strict", is_flag=True,
              help="Apply the rules for new publications: every file must be pinned.")  # fmt: skip
@json_option
def validate(path: Path | None, schema: KindName | None, strict: bool, as_json: bool) -> None:
    """Check a manifest or the folder of a plugin.

    Does not run the code of the plugin. Exits with 1 if there is a problem to fix.

    \b
    Examples:
      refiners validate src/refiners_mine/adapter.toml
      refiners validate --strict plugins/mine
      refiners validate --schema adapter
    """
    from refiners.authoring.validate import validate as check

    if schema is not None:
        print_json(json_schema(MANIFESTS[schema]))
        return
    if path is None:
        raise click.UsageError("Name what to check: a manifest, or the folder of a plugin.")
    findings = check(path, is_strict=strict)
    if as_json:
        facts = [{"path": str(f.path), "rule": f.rule, "what": f.what} for f in findings]
        print_json({"path": str(path), "strict": strict, "findings": facts})
    elif findings:
        rows = [(finding.path.name, finding.what) for finding in findings]
        print_table(f"{path}: {len(findings)} to fix", ("file", "problem"), rows)
    else:
        click.echo(f"{path} is valid.")
    if findings:
        click.get_current_context().exit(1)


class New(click.Group):
    """A group in which `new NAME` is short for `new adapter NAME`."""

    default = "adapter"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


@click.group(cls=New)
def new() -> None:
    """Write the repository of a new adapter or base model.

    It has code, a manifest, tests of the whole contract and workflows that publish it, ready to be
    changed. `new NAME` is short for `new adapter NAME`.

    \b
    Examples:
      refiners new adapter edge-guide
      refiners new adapter edge-guide --kind control --author "Ada Lovelace"
      refiners new model small-sketch
    """


def _answers(command: F) -> F:
    """Adds the options of both commands."""
    for option in reversed(
        (
            click.option("--title", help="The title, for people; made of the name by default."),
            click.option("--summary", help="One sentence on what it does."),
            click.option("--author", help="The holder of the copyright."),
            click.option("--license", type=click.Choice(LICENSES), help="MIT by default."),
            click.option("--repository", metavar="URL", help="The address of the repository."),
            click.option("--folder", type=click.Path(path_type=Path),
                         help="The folder of the repository; refiners-NAME by default."),
            click.option("--template", metavar="SOURCE", default="",
                         help="A folder or a git repository in place of the template in Refiners."),
            json_option,
        )
    ):  # fmt: skip
        command = option(command)
    return command


@new.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True,
              help="What the adapter begins with.")  # fmt: skip
@_answers
def adapter(name: str, kind: str, **options: Any) -> None:
    """Write the repository of a new adapter.

    \b
    Kinds:
      lora          low-rank branches beside layers, and a file of weights
      control       a network that reads a picture to follow
      image-prompt  attention to the tokens of a picture
      guidance      a rule for the step that joins the predictions
      plain         one edit without weights

    \b
    Examples:
      refiners new adapter edge-guide
      refiners new adapter edge-guide --kind control --folder plugins/edge-guide
    """
    _write(name, kind, **options)


@new.command()
@click.argument("name")
@_answers
def model(name: str, **options: Any) -> None:
    """Write the repository of a new base model, with the slots of Stable Diffusion.

    \b
    Examples:
      refiners new model small-sketch
    """
    _write(name, MODEL, **options)


def _write(
    name: str,
    kind: str,
    *,
    folder: Path | None,
    template: str,
    as_json: bool,
    **answers: str | None,
) -> None:
    folder = folder or Path(f"refiners-{name}")
    stated = {key: answer for key, answer in answers.items() if answer is not None}
    written = create(name, folder, kind=kind, answers=stated, template=template)
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(f"wrote {path}")
    install = "pip install --editable . --group dev"
    click.echo(f"Next: {quoted('cd', folder)} && {install} && python -m pytest")
