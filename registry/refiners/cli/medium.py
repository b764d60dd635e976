"""Whether a model makes pictures or writes texts, and which command is for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from refiners.errors import OptionError
from refiners.host.shell import quoted


@runtime_checkable
class WritesText(Protocol):
    """A model that writes texts, of whichever family."""

    def stream(self, prompt: Any, **arguments: Any) -> Iterator[Any]:
        """Returns an iterator over the pieces of a text as it is written."""
        ...

    def check(self, prompt: Any, **arguments: Any) -> None:
        """Checks the arguments of a generation."""
        ...


def check_medium(model: object, name: str, *, is_text: bool) -> None:
    """Checks that a model makes what a command prints.

    Args:
        model: The model, with or without weights.
        name: Its name on the command line.
        is_text: Whether the command prints texts rather than pictures.

    Raises:
        OptionError: The model is for another command.
    """
    if isinstance(model, WritesText) == is_text:
        return
    if is_text:
        raise OptionError(
            f"{name} does not write texts.",
            hint=f"Run {quoted('refiners', 'generate')} PROMPT {quoted('--model', name)}, or leave "
            "--model out.",
        )
    raise OptionError(
        f"{name} writes texts; it does not make pictures.",
        hint=f"Run {quoted('refiners', 'write')} PROMPT {quoted('--model', name)}.",
    )
