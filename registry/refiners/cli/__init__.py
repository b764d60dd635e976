"""The command `refiners`: finds, checks and fetches adapters, and makes pictures, from a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from refiners.cli.failure import (
    is_traceback_wanted,
    report,
    report_interrupt,
    report_usage,
    to_refiners_error,
    wants_json,
)
from refiners.cli.output import accept_every_character, flush, reserve_stdout
from refiners.cli.report import notices
from refiners.cli.safe_stream import safe_streams
from refiners.errors import RefinersError
from refiners.installed.distribution import DISTRIBUTION
from refiners.installed.namesake import is_overwritten, warn

FUNCTIONS: Final = {
    "list": "inventory:list_",
    "search": "catalog",
    "info": "inventory",
    "why": "why",
    "fetch": "fetch",
    "lock": "lock",
    "sync": "lock",
    "verify": "lock",
    "doctor": "doctor",
    "tree": "tree",
    "samplers": "samplers",
    "generate": "generate",
    "write": "write",
    "chat": "chat",
    "preprocess": "preprocess",
    "demo": "demo",
    "examples": "examples",
    "new": "authoring",
    "validate": "authoring",
    "pin": "pin",
    "publish-check": "publish_check:publish_check",
    "catalog": "catalog",
    "api": "api",
}
"""The function of each command: `module:function`, or the module of a function of that name."""


class Commands(click.Group):
    """A group that imports a command when it is called, and prints an error however it fails.

    The exit code is that of the error. With `--json`, errors are JSON too, those of the command
    line included.
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
        accept_every_character()
        as_json = wants_json(arguments)
        with safe_streams(), reserve_stdout(as_json), notices():
            code = self._exit_code(as_json, arguments, prog_name, complete_var, extra)
        flush()
        sys.exit(code)

    def _exit_code(self, as_json: bool, arguments: list[str], *more: Any) -> int:
        """Runs a command line, prints its error, and returns the exit code."""
        prog_name, complete_var, extra = more
        command: click.Command | None = None
        try:
            name = next((word for word in arguments if not word.startswith("-")), "")
            command = self.get_command(click.Context(self), name)
            if command is not None and name not in FUNCTIONS:
                from refiners.cli.package_command import RegistryShell, leaf, print_result

                command = leaf(command, arguments)
                shell = RegistryShell()
                code = super().main(arguments, prog_name, complete_var, False, obj=shell, **extra)
                return print_result(code, as_json=as_json)
            code = super().main(arguments, prog_name, complete_var, False, **extra)
        except click.Abort:
            return report_interrupt(as_json=as_json)
        except click.ClickException as error:
            return report_usage(error, as_json=as_json)
        except Exception as error:
            if is_traceback_wanted() and not isinstance(error, RefinersError):
                raise
            return report(to_refiners_error(error, command), command, as_json=as_json)
        return code if isinstance(code, int) else 0

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SystemExit as error:  # raised by a plugin: click exits with an exception of its own
            raise to_refiners_error(error, None) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        from refiners.installed.command import package_commands

        return [*FUNCTIONS, *(command.name for command in package_commands(FUNCTIONS).unique)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = FUNCTIONS.get(cmd_name)
        if path is None:
            from refiners.cli.package_command import load_command

            return load_command(cmd_name, FUNCTIONS)
        module, _, function = path.partition(":")
        return getattr(import_module(f"refiners.cli.{module}"), function or cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands; those of packages are not imported."""
        from refiners.cli.package_command import listed

        commands = {name: self.get_command(ctx, name) for name in FUNCTIONS}
        limit = formatter.width - 6 - max(map(len, commands))
        rows = [(n, c.get_short_help_str(limit)) for n, c in commands.items() if c is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        if more := listed(FUNCTIONS):
            with formatter.section("Commands of packages"):
                formatter.write_dl(more)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """Find, check and use adapters for foundation models.

    \b
    Examples:
      refiners demo
      refiners list
      refiners tree playground --with controlnet-canny
      refiners generate "a red circle" --model playground --out circle.png
      refiners write "a red circle" --model playground-writer

    Exit codes: 0 success, 1 a failed check or another error, 2 usage, 3 network, 4 integrity or
    policy. With --json, errors are JSON too: {"error": {"code", "message", "hint", "dist"}}.

    \b
    Tab completion in bash; zsh_source or fish_source elsewhere:
      eval "$(_REFINERS_COMPLETE=bash_source refiners)"
    """
    if is_overwritten():  # so that importing the package could not warn
        warn()
