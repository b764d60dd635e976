"""The command `refiners`: the registry and a first picture, from a shell."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from refiners.cli.door import guarded
from refiners.cli.report import fail, notices
from refiners.errors import RefinersError

_HOMES: Final = {
    "list": "inventory:list_",
    "search": "catalog",
    "info": "inventory",
    "why": "why",
    "fetch": "doctor",
    "lock": "lock",
    "sync": "lock",
    "verify": "lock",
    "doctor": "doctor",
    "tree": "tree",
    "generate": "generate",
    "demo": "demo",
    "new": "author",
    "validate": "author",
    "catalog": "catalog",
}
"""Where each command lives: `module:function`, or the module where the function has its name."""


class Commands(click.Group):
    """Commands that are imported when they are asked for, and whose failures are told in words.

    The exit code is the one that the error carries.
    """

    def main(self, *arguments: Any, **more: Any) -> Any:
        with guarded():
            return super().main(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with notices():
                return super().invoke(ctx)
        except RefinersError as error:
            fail(error, as_json=ctx.meta.get("as_json", False))
            ctx.exit(error.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_HOMES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        module, _, function = home.partition(":")
        return getattr(import_module(f"refiners.cli.{module}"), function or cmd_name)


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
