"""The hierarchy of errors that users meet; it does not import torch."""

from typing import ClassVar, Final

GLOSSARY: Final = "docs/glossary.md"
"""The page of the repository that defines the terms of error messages."""

__all__ = [
    "AdapterError",
    "ArgumentError",
    "ConditionError",
    "ContextError",
    "GenerationError",
    "HookError",
    "ModelError",
    "Notice",
    "PlanError",
    "RefinersError",
    "SelectionError",
    "TreeError",
    "WeightsError",
]


class RefinersError(Exception):
    """An error that the caller can fix.

    The message states what was requested and what exists; the hint states what to type.

    Args:
        message: The facts: the request, and what exists.
        hint: The next thing to type or do.
        dist: The distribution at fault, if any.
    """

    code: ClassVar[str] = "refiners"
    """A stable kebab-case identifier for programs."""
    exit_code: ClassVar[int] = 1
    """The exit code of the shell: 1 check failed, 2 usage, 3 network, 4 integrity or policy."""
    page: ClassVar[str] = ""
    """The page and anchor that explain the terms of the message; empty if all are common."""

    def __init__(self, message: str, *, hint: str = "", dist: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.dist = dist

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class Notice(UserWarning):
    """A warning about something that did not fail; the shell prints it on one line."""


class TreeError(RefinersError):
    """A tree of layers was built or edited in an invalid way."""

    code = "tree"
    exit_code = 2
    page = f"{GLOSSARY}#chain"


class ContextError(RefinersError):
    """A layer read a value that the context does not have."""

    code = "context"
    exit_code = 2
    page = f"{GLOSSARY}#context"


class SelectionError(RefinersError):
    """A selection does not hold the seats that were expected."""

    code = "selection"
    exit_code = 2
    page = f"{GLOSSARY}#selection"


class PlanError(RefinersError):
    """Edits cannot be applied to this tree; nothing was changed."""

    code = "plan"
    page = f"{GLOSSARY}#plan"


class AdapterError(RefinersError):
    """An adapter was used in a way that its state does not allow."""

    code = "adapter"
    exit_code = 2
    page = f"{GLOSSARY}#adapter"


class ConditionError(RefinersError):
    """A condition for an adapter is missing, superfluous or of the wrong type."""

    code = "condition"
    exit_code = 2
    page = f"{GLOSSARY}#condition"


class WeightsError(RefinersError):
    """A weights file does not match the tree that it was loaded into; the tree is unchanged."""

    code = "weights"
    page = f"{GLOSSARY}#key-map"


class ModelError(RefinersError):
    """A model was built, read or called in an invalid way."""

    code = "model"
    exit_code = 2
    page = f"{GLOSSARY}#model"


class HookError(RefinersError):
    """A hook of a package does not match its specification; its module is skipped."""

    code = "hook"
    page = f"{GLOSSARY}#hook-module"


class GenerationError(RefinersError):
    """A generation was called with an invalid argument; nothing has run."""

    code = "generation"
    exit_code = 2


class ArgumentError(GenerationError, TypeError):
    """A function was called with an argument that it does not take; nothing has run."""

    code = "argument"
