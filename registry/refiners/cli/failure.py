"""Turns whatever ends a command into a line with what to do, or JSON, and an exit code."""

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
from refiners_core.argument_names import suggestion

TRACEBACK: Final = "REFINERS_TRACEBACK"
"""The variable by which somebody who looks for a fault asks for Python's own account of it."""


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, even one that cannot be understood."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def understood(error: BaseException, command: click.Command | None) -> RefinersError:
    """Returns our error for anything that a command raised.

    Args:
        error: What was raised.
        command: The command, to name its options.
    """
    if isinstance(error, RefinersError):
        return error
    if isinstance(error, SystemExit):
        return PluginError(
            f"a plugin ended the process with {error.code!r}.", hint="See refiners doctor."
        )
    doing = f"running refiners {command.name}" if command else "running refiners"
    place = getattr(error, "filename", None) or "a file"
    if (fault := machine_fault(error, doing, place=str(place))) is not None:
        return fault
    return RefinersError(
        f"{type(error).__name__}: {str(error).strip() or 'no reason given'}.".replace("..", "."),
        hint=f"This should not happen. {TRACEBACK}=1 shows where it did, for a report.",
    )


def report(error: RefinersError, command: click.Command | None, *, as_json: bool) -> int:
    """Prints an error, to stderr for people and to stdout for programs; returns the exit code."""
    options = _options(command)
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
    """Prints what is wrong with a command line, and what it could have meant."""
    message, hint = error.format_message(), ""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None:
        hint = _meant(error.option_name, context.command)
        message = f"There is no option {error.option_name}." if hint else message
    if as_json:
        _print_facts("usage", message, hint, None)
    elif hint:
        click.UsageError(f"{message} {hint}", context).show()
    else:
        error.show()
    return error.exit_code


def report_interrupt(*, as_json: bool) -> int:
    """Prints that somebody ended the command."""
    if as_json:
        _print_facts("aborted", "the command was interrupted.", "", None)
    else:
        click.echo("Aborted!", err=True)
    return 1


def is_traceback_wanted() -> bool:
    """Whether somebody looks for the place where a fault arose."""
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def _print_facts(code: str, message: str, hint: str, dist: str | None) -> None:
    facts: dict[str, Any] = {"code": code, "message": message, "hint": hint, "dist": dist}
    print_json({"error": facts})


def _options(command: click.Command | None) -> Collection[str]:
    """Returns the options of a command, and the names of its arguments."""
    if command is None:
        return ()
    arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
    return [*arguments, *(name for p in command.params for name in p.opts)]


def _meant(option: str, command: click.Command) -> str:
    """Returns the option that somebody means who types a word of another library."""
    options = _options(command)
    known = {name: ours for name, ours in OPTIONS.items() if ours in options}
    if (name := suggestion(option.lstrip("-"), known)) is None:
        return ""
    shape = "NAME=PICTURE:SCALE" if name == "conditions" else ""
    return f"Did you mean {known[name]} {shape}".rstrip() + "?"
