"""Commands that packages add to the shell: what they are given, and what they return.

A package declares a command in the entry-point group `refiners.commands`, as `name =
"module:object"`. The object is a `click.Command`, often a group, which the shell lists without
importing it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from refiners_core.model import Model

__all__ = ["GROUP", "Report", "Shell"]

GROUP: Final = "refiners.commands"
"""The entry-point group of commands."""


@dataclass(frozen=True)
class Report:
    """The result of a command, which the shell prints as a table, or as JSON with `--json`."""

    title: str
    """One line above the table."""
    columns: Sequence[str]
    """The headings of the table."""
    rows: Sequence[Sequence[object]]
    """The cells of each row, as many as there are columns."""
    facts: Mapping[str, Any]
    """The same facts for programs: values of JSON by name."""
    exit_code: int = 0
    """The exit code of the shell: 1 if the command checked something that does not hold."""


class Shell(ABC):
    """The part of the registry that commands use; `click.pass_obj` passes it to them."""

    @abstractmethod
    def load_model(self, what: str) -> Model:
        """Loads a model by name, from a folder or file, or from the Hub, as `load_model` does.

        Raises:
            RefinersError: The name does not lead to a model, or its files cannot be fetched.
        """

    @abstractmethod
    def outline(self, what: str) -> Model:
        """Builds the structure of a model on the meta device; nothing is fetched.

        Raises:
            RefinersError: The name does not lead to a model.
        """

    @abstractmethod
    def fetch(self, file: str) -> Path:
        """Returns the path of a file or folder, fetched if it is on the Hub.

        Args:
            file: A path, or `hf:organisation/name[@revision][/path]`. Configurations beside weights
                come with them.

        Raises:
            RefinersError: The file does not exist, or cannot be fetched as announced.
        """

    @abstractmethod
    def models_for(self, file: str) -> Sequence[str]:
        """Returns the names of the installed models that a file suits, by its header alone.

        Raises:
            RefinersError: The file does not exist, or is not a safetensors file.
        """
