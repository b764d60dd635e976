"""The command `refiners`: the registry and a first picture, from a shell."""

from __future__ import annotations

from typing import Any

import click

from refiners.cli.report import fail
from refiners.errors import RefinersError


class Commands(click.Group):
    """Commands whose failures are told in words, with the exit code that the error carries."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RefinersError as error:
            fail(error, as_json=ctx.meta.get("as_json", False))
            ctx.exit(error.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="refiners")
def main() -> None:
    """Adapters for foundation models, by name.

    \b
    Examples:
      refiners demo
      refiners list
      refiners tree playground --with controlnet-canny
      refiners generate "a red circle" --model playground --out circle.png

    Exit codes: 0 done, 1 a check failed, 2 usage, 3 network, 4 integrity or policy.
    """


def _add_commands() -> None:
    from refiners.cli import author, catalog, demo, doctor, generate, inventory, lock, tree, why

    for command in (
        *(inventory.list_, catalog.search, inventory.info, why.why),
        *(doctor.fetch, lock.lock, lock.sync, lock.verify, doctor.doctor),
        *(author.new, author.validate, catalog.catalog),
        *(tree.tree, generate.generate, demo.demo),
    ):
        main.add_command(command)


_add_commands()
