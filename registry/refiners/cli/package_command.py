"""Commands of packages: their list in the help, their import, and the output of their reports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refiners.cli.location import name_or_path
from refiners.cli.output import say
from refiners.cli.report import print_json, print_table
from refiners.errors import PluginError
from refiners.installed.command import package_commands
from refiners.installed.declared import Declared
from refiners_core.command import Report, Shell

if TYPE_CHECKING:
    from refiners_core import Model


class RegistryShell(Shell):
    """Gives the commands of packages the models of this installation."""

    def load_model(self, what: str) -> Model:
        """Loads a model, by a name or from files, as `refiners generate --model` does."""
        from refiners.load import load_model

        return load_model(name_or_path(what))

    def outline(self, what: str) -> Model:
        """Builds the structure of a model, as `refiners tree` does."""
        from refiners.load import outline

        return outline(name_or_path(what))

    def fetch(self, file: str) -> Path:
        """Fetches a file as `load_adapter` does, by the rules of the policy."""
        from refiners.sources.on_disk import on_disk

        return on_disk(file)

    def models_for(self, file: str) -> Sequence[str]:
        """Returns the installed models of the bases that `refiners info` shows for a file."""
        from refiners.hub.client import Hub
        from refiners.installed.inventory import scan
        from refiners.sources.file_facts import facts_of_files

        facts = facts_of_files(file, Hub.from_environment(offline=True))
        bases = {base for each in facts for base in each.get("base", ())}
        return [model.name for model in scan().models if (model.spec.base or model.name) in bases]


def listed(reserved: Collection[str]) -> list[tuple[str, str]]:
    """Returns the commands of packages and a line of help for each; prints notices of others.

    Args:
        reserved: The names of the commands of Refiners itself.
    """
    declared = package_commands(reserved)
    for fault in declared.broken:
        say(f"note: {fault}", color="yellow", err=True)
    for name, commands in declared.namesakes.items():
        ids = " and ".join(command.id for command in commands)
        say(f"note: {name!r} is a command of several packages: {ids}", color="yellow", err=True)
    return [(command.name, f"A command of {command.dist}.") for command in declared.unique]


def load_command(name: str, reserved: Collection[str]) -> click.Command | None:
    """Imports a command of a package, and gives it the option `--json`.

    Args:
        name: The name of the command, or `distribution:name`.
        reserved: The names of the commands of Refiners itself.

    Returns:
        The command; None if no package has it.

    Raises:
        AmbiguousNameError: Several packages have a command of this name.
        PolicyError: A rule of the project or the user, or an advisory, refuses the package.
        PluginError: The import failed, or did not lead to a command of click.
    """
    declared = package_commands(reserved)
    command = declared.named(name)
    return None if command is None else _imported(command)


def print_result(result: object, *, as_json: bool) -> int:
    """Prints the report that a command of a package returned, and returns the exit code."""
    if isinstance(result, Report) and as_json:
        print_json(result.facts)
    elif isinstance(result, Report):
        print_table(result.title, result.columns, result.rows)
    if isinstance(result, Report):
        return result.exit_code
    return result if isinstance(result, int) else 0


def leaf(command: click.Command | None, arguments: Sequence[str]) -> click.Command | None:
    """Returns the innermost command of a group that a command line names."""
    for word in arguments:
        if isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
    return command


def _imported(command: Declared) -> click.Command:
    from refiners.choose.policy import Guard
    from refiners.installed.factory import import_reference

    Guard.from_environment().admit(command)
    imported: Any = import_reference(command.reference, command.dist)
    if not isinstance(imported, click.Command):
        raise PluginError(
            f"{command.reference} is a {type(imported).__name__}, not a command of click.",
            hint="Ask its author.",
            dist=command.dist,
        )
    _add_json(imported)
    return imported


def _add_json(command: click.Command) -> None:
    """Adds the option `--json` to a command and those below it, unless they have it."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _add_json(below)
    elif not any("--json" in parameter.opts for parameter in command.params):
        command.params.append(
            click.Option(["--json"], is_flag=True, expose_value=False, help="Print JSON.")
        )
