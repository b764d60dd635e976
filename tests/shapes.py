"""Executes the shapes and types that signatures state, while tests run.

`make test` names `shapes.checked` as jaxtyping's checker for the tests of numbers.
"""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks a function at every call; only those that return `typing.Self` are beyond beartype."""
    try:
        return _beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function
