"""Preprocessors: functions that make the value of a condition, such as edges, from a picture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Preprocessor(Protocol):
    """A function that makes the value of a condition from a picture."""

    def __call__(self, value: Any, *, size: tuple[int, int] | None = None) -> Any:
        """Returns the value that an adapter takes, usually a PIL image.

        Args:
            value: One picture, in any form that `to_pixels` takes, or what else this preprocessor
                reads, such as keypoints.
            size: Width and height of the result in pixels; by default those of the picture.

        Raises:
            ConditionError: The preprocessor cannot read the value.
        """
        ...


@dataclass(frozen=True)
class NamedPreprocessor:
    """A preprocessor that was found by name, and is not loaded yet."""

    name: str
    load: Callable[[], Preprocessor]
    """Returns the preprocessor; it may fetch weights at the first call."""
    has_weights: bool
    """Whether it runs a network, which a check of arguments must not do."""
    version: str = ""
    """The version of its package; empty for a function without one."""


@runtime_checkable
class FindPreprocessor(Protocol):
    """A function that finds the preprocessors of an adapter; a registry gives it to adapters."""

    def __call__(self, role: str, name: str = "") -> NamedPreprocessor | None:
        """Returns the preprocessor of one input of an adapter.

        Args:
            role: The name of the input; empty for an adapter with a single one.
            name: The name of the preprocessor; by default the one that the adapter declares for
                the input.

        Returns:
            The preprocessor; None if the adapter declares none for the input.

        Raises:
            RefinersError: The name does not lead to exactly one preprocessor.
        """
        ...
