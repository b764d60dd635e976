"""The command `refiners`: the registry and a first picture, from a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from refiners.cli.door import guarded
from refiners.cli.failure import (
    is_traceback_wanted,
    report,
    report_interrupt,
    report_usage,
    understood,
    wants_json,
)
from refiners.cli.report import notices
from refiners.cli.screen import answering, prepare, settle
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
    "api": "api",
}
"""Where each command lives: `module:function`, or the module where the function has its name."""


class Commands(click.Group):
    """Commands that are imported when they are asked for; however one ends, it ends in words.

    The exit code is the one that the error carries. With `--json` errors are JSON too, those of the
    command line included.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = sys.argv[1:] if args is None else [*args]
        if not standalone_mode:
            try:
                return super().main(arguments, prog_name, complete_var, False, **extra)
            except RefinersError as error:
                return report(error, None, as_json=wants_json(arguments))
        prepare()
        as_json = wants_json(arguments)
        with guarded(), answering(as_json), notices():
            code = self._ended(as_json, arguments, prog_name, complete_var, extra)
        settle()
        sys.exit(code)

    def _ended(self, as_json: bool, arguments: list[str], *more: Any) -> int:
        """Runs a command line and returns the exit code; prints what went wrong."""
        prog_name, complete_var, extra = more
        command: click.Command | None = None
        try:
            name = next((word for word in arguments if word in _HOMES), "")
            command = self.get_command(click.Context(self), name)
            code = super().main(arguments, prog_name, complete_var, False, **extra)
        except click.Abort:
            return report_interrupt(as_json=as_json)
        except click.ClickException as error:
            return report_usage(error, as_json=as_json)
        except Exception as error:
            if is_traceback_wanted() and not isinstance(error, RefinersError):
                raise
            return report(understood(error, command), command, as_json=as_json)
        return code if isinstance(code, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SystemExit as error:  # of a plugin: click has an exception of its own
            raise understood(error, None) from error

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

    Exit codes: 0 done, 1 a check failed, 2 usage, 3 network, 4 integrity or policy. With --json
    errors are JSON as well: {"error": {"code", "message", "hint", "dist"}}.

    To complete names with the tab key in bash:
    eval "$(_REFINERS_COMPLETE=bash_source refiners)"; zsh_source and fish_source are for others.
    """
