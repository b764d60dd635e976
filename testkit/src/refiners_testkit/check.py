"""Marks the checks of a contract, and the outcomes of a check."""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., Any])
MARK = "conformance"
"""The mark of a test that is a check; its argument is the id."""


def check(name: str) -> Callable[[F], F]:
    """Returns a decorator that makes a test method the check with an id.

    Args:
        name: The id, in lower-case words joined by hyphens.
    """
    return getattr(pytest.mark, MARK)(name)


def expect(is_so: bool, otherwise: str, hint: str) -> None:
    """Fails the check unless `is_so`.

    Args:
        is_so: Whether the package keeps this part of the contract.
        otherwise: The fault, as a sentence.
        hint: How to mend it.
    """
    if not is_so:
        fail(otherwise, hint)


def expect_none(faults: Iterable[object], hint: str) -> None:
    """Fails the check with a list of faults, if there are any."""
    lines = [str(fault) for fault in faults]
    expect(not lines, "\n".join(lines), hint)


def fail(fault: str, hint: str) -> NoReturn:
    """Fails the check with a fault and the way to mend it."""
    pytest.fail(f"{fault}\n{hint}", pytrace=False)


def not_run(reason: str) -> NoReturn:
    """Ends the check with the verdict `not-run`."""
    pytest.skip(reason)
