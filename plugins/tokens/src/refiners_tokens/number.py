"""Checks of the numbers that adapters take as options."""

from collections.abc import Collection
from typing import Any

from refiners_core.errors import AdapterError


def whole(name: str, value: Any, usual: int, *, least: int) -> int:
    """Returns a whole number.

    Args:
        name: The option.
        value: Its value.
        usual: The value of the hint.
        least: The lower bound, included.

    Raises:
        AdapterError: The value is another one.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise AdapterError(
            f"{name} is a whole number of at least {least}, not {value!r}.",
            hint=f"Try {name}={usual}.",
        )
    return value


def one_of(name: str, value: Any, values: Collection[int]) -> int:
    """Returns one of a few whole numbers.

    Raises:
        AdapterError: The value is another one.
    """
    if isinstance(value, bool) or value not in values:
        known = ", ".join(map(str, values))
        raise AdapterError(
            f"{name} is one of {known}, not {value!r}.", hint=f"Try {name}={next(iter(values))}."
        )
    return value


def share(name: str, value: Any, usual: float) -> float:
    """Returns a number in 0...1.

    Raises:
        AdapterError: The value is another one.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise AdapterError(
            f"{name} is a number in 0...1, not {value!r}.", hint=f"Try {name}={usual:g}."
        )
    return float(value)


def flag(name: str, value: Any) -> bool:
    """Returns True or False.

    Raises:
        AdapterError: The value is neither.
    """
    if not isinstance(value, bool):
        raise AdapterError(f"{name} is True or False, not {value!r}.", hint=f"Try {name}=True.")
    return value
