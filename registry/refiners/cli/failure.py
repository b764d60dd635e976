"""Prints the error that ends a command, with a hint or as JSON, and chooses the exit code."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any, Final

import click

from refiners.cli.output import say
from refiners.cli.report import print_json
from refiners.cli.shell_words import OPTIONS, shell_words
from refiners.errors import PluginError, RefinersError
from refiners.host.machine import machine_fault
from refiners.host.secret import hidden
from refiners.host.text import reason_of
from refiners_core.argument_names import suggestion
from refiners_core.hookspecs import culprit

TRACEBACK: Final = "REFINERS_TRACEBACK"
"""The variable that makes unexpected exceptions print a traceback."""


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line, valid or not, asks for JSON."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def to_refiners_error(error: BaseException, command: click.Command | None) -> RefinersError:
    """Returns an error of ours for any exception of a command.

    Args:
        error: The exception.
        command: The command, for messages.
    """
    if isinstance(error, RefinersError):
        return error
    if name := culprit(error):
        return PluginError(
            f"the hooks {name} failed: {type(error).__name__}: {reason_of(error)}.",
            hint=f"To do without them: pip uninstall {name.partition(':')[0]}.",
            dist=name.partition(":")[0],
        )
    if isinstance(error, SystemExit):
        return PluginError(
            f"a plugin ended the process with {error.code!r}.", hint="Run refiners doctor."
        )
    doing = f"running refiners {command.name}" if command else "running refiners"
    place = getattr(error, "filename", None) or "a file"
    if (fault := machine_fault(error, doing, place=str(place))) is not None:
        return fault
    return RefinersError(
        f"{type(error).__name__}: {str(error).strip() or 'no reason given'}.".replace("..", "."),
        hint=f"This is a bug. Set {TRACEBACK}=1 to print a traceback, and report it.",
    )


def report(error: RefinersError, command: click.Command | None, *, as_json: bool) -> int:
    """Prints an error, to stderr or as JSON to stdout, and returns the exit code."""
    options = option_names(command)
    message = hidden(shell_words(error.message.strip(), options))
    hint = hidden(shell_words(error.hint, options))
    if as_json:
        _print_facts(error.code, message, hint, error.dist)
        return error.exit_code
    say(f"error: {message}", color="red", err=True)
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    page = f"See {error.page}." if error.page else ""
    for line in (hint, *notes, page):
        if line:
            say(f"  {hidden(line)}", err=True)
    return error.exit_code


def report_usage(error: click.ClickException, *, as_json: bool) -> int:
    """Prints an error in a command line, with the option that may have been meant."""
    message, hint = error.format_message(), ""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None:
        hint = _meant(error.option_name, context.command)
        message = f"No such option: {error.option_name}." if hint else message
    if as_json:
        _print_facts("usage", message, hint, None)
    elif hint:
        click.UsageError(f"{message} {hint}", context).show()
    else:
        error.show()
    return error.exit_code


def report_interrupt(*, as_json: bool) -> int:
    """Prints that the user interrupted the command."""
    if as_json:
        _print_facts("aborted", "the command was interrupted.", "", None)
    else:
        click.echo("Aborted!", err=True)
    return 1


def is_traceback_wanted() -> bool:
    """Whether unexpected exceptions should print a traceback."""
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def option_names(command: click.Command | None) -> Collection[str]:
    """Returns the options of a command, and the names of its arguments."""
    if command is None:
        return ()
    arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
    return [*arguments, *(name for p in command.params for name in p.opts)]


def _print_facts(code: str, message: str, hint: str, dist: str | None) -> None:
    facts: dict[str, Any] = {"code": code, "message": message, "hint": hint, "dist": dist}
    print_json({"error": facts})


def _meant(option: str, command: click.Command) -> str:
    """Returns a suggestion for an option with a name from another library."""
    options = option_names(command)
    known = {name: ours for name, ours in OPTIONS.items() if ours in options}
    if (name := suggestion(option.lstrip("-"), known)) is None:
        return ""
    shape = "NAME=PICTURE:SCALE" if name == "conditions" else ""
    return f"Did you mean {known[name]} {shape}".rstrip() + "?"
