"""`refiners api`: the names that other packages may import, covered by one version."""

from __future__ import annotations

import click

from refiners.cli.report import json_option, print_json


@click.command()
@json_option
def api(as_json: bool) -> None:
    """Print the public modules and names, and the version that covers them.

    Adapters and other packages should import these names and no others.

    \b
    Examples:
      refiners api
      refiners api --json
    """
    from refiners_core import API_VERSION
    from refiners_core.public import MODULES, public_names

    names = {module: public_names(module) for module in MODULES}
    if as_json:
        print_json({"api_version": API_VERSION, "modules": names})
        return
    click.echo(f"API {API_VERSION}")
    for module, members in names.items():
        for member in members:
            click.echo(f"{module}.{member}")
