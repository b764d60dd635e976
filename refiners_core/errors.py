"""The one tree of errors that users meet. Importing it costs nothing: no torch here."""

from typing import ClassVar, Final

GLOSSARY: Final = "docs/glossary.md"
"""The page that defines the words of errors, in the repository."""

__all__ = [
    "AdapterError",
    "ArgumentError",
    "ConditionError",
    "ContextError",
    "GenerationError",
    "ModelError",
    "Notice",
    "PlanError",
    "RefinersError",
    "SelectionError",
    "TreeError",
    "WeightsError",
]


class RefinersError(Exception):
    """Something that the caller can mend.

    The text says what was asked and what is there; the hint says what to type.

    Args:
        message: What was asked and what was found.
        hint: What to type or do next.
        dist: The distribution at fault, if one is.
    """

    code: ClassVar[str] = "refiners"
    """A stable kebab-case word for programs to look at."""
    exit_code: ClassVar[int] = 1
    """What a shell command ends with: 1 check failed, 2 usage, 3 network, 4 integrity or policy."""
    page: ClassVar[str] = ""
    """The page and anchor that explain its words; empty where all are common words."""

    def __init__(self, message: str, *, hint: str = "", dist: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.dist = dist

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class Notice(UserWarning):
    """Something to know though nothing failed; the shell prints it in a line."""


class TreeError(RefinersError):
    """A tree of layers was built or edited in a way that it does not allow."""

    code = "tree"
    exit_code = 2
    page = f"{GLOSSARY}#chain"


class ContextError(RefinersError):
    """A layer asked the context for a value that is not there."""

    code = "context"
    exit_code = 2
    page = f"{GLOSSARY}#context"


class SelectionError(RefinersError):
    """A selection found other seats than it was asked for."""

    code = "selection"
    exit_code = 2
    page = f"{GLOSSARY}#selection"


class PlanError(RefinersError):
    """Edits cannot be made on this tree; nothing was changed."""

    code = "plan"
    page = f"{GLOSSARY}#plan"


class AdapterError(RefinersError):
    """An adapter was asked for something that its state does not allow."""

    code = "adapter"
    exit_code = 2
    page = f"{GLOSSARY}#adapter"


class ConditionError(RefinersError):
    """A condition for an adapter is missing, superfluous or of the wrong kind."""

    code = "condition"
    exit_code = 2
    page = f"{GLOSSARY}#condition"


class WeightsError(RefinersError):
    """A weights file does not fit the tree it was meant for; the tree is as it was."""

    code = "weights"
    page = f"{GLOSSARY}#key-map"


class ModelError(RefinersError):
    """A model was built, read or called in a way that it does not allow."""

    code = "model"
    exit_code = 2
    page = f"{GLOSSARY}#model"


class GenerationError(RefinersError):
    """A generation was asked for with an argument that it cannot follow; nothing has run."""

    code = "generation"
    exit_code = 2


class ArgumentError(GenerationError, TypeError):
    """A function was called with an argument that it does not take; nothing has run."""

    code = "argument"
