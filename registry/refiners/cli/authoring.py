"""`refiners new` and `refiners validate`, for authors of adapters."""

from __future__ import annotations

from pathlib import Path

import click

from refiners.cli.report import json_option, print_json, print_table
from refiners.host.shell import quoted
from refiners.manifest.schema import MANIFESTS, KindName, json_schema


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


@click.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path),
              help="The folder of the package; refiners-NAME by default.")  # fmt: skip
@json_option
def new(name: str, folder: Path | None, as_json: bool) -> None:
    """Write the package of a new adapter.

    The package has a manifest, code and tests, ready to be changed.

    \b
    Examples:
      refiners new edge-guide
      refiners new edge-guide --folder plugins/edgeguide
    """
    from refiners.authoring.scaffold import create

    folder = folder or Path(f"refiners-{name}")
    written = create(name, folder)
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"Next: {quoted('cd', folder)} && pip install -e . && python -m pytest")
