"""Checks of options: those of adapters, of preprocessors, and of a generation.

Each returns its value, or raises an error that names the option, its bounds and an example.
"""

import math
import reprlib
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from refiners_core.errors import AdapterError, RefinersError

__all__ = ["choice", "described", "flag", "is_number", "is_whole", "number", "whole"]


def number(
    name: str,
    value: Any,
    usual: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    of: str = "",
    error: type[RefinersError] = AdapterError,
) -> float:
    """Returns a finite number within bounds, both included.

    Args:
        name: The option.
        value: Its value; True and False are not numbers.
        usual: The value of the hint.
        low: The lower bound.
        high: The upper bound.
        of: The key of the adapter, where the message has to name it.
        error: The kind of error.

    Raises:
        RefinersError: The value is another one; of the kind `error`.

    Example:
        >>> number("eta", 1, 0.5, low=0, high=1)
        1.0
    """
    if not is_number(value) or not low <= value <= high:
        kind = "finite number" if (low, high) == (-math.inf, math.inf) else "number"
        raise error(
            f"{_named(name, of)} is a {kind}{_bounds(low, high)}, not {described(value)}.",
            hint=f"Try {name}={usual}.",
        )
    return float(value)


def whole(
    name: str,
    value: Any,
    usual: int,
    *,
    low: int = 1,
    high: float = math.inf,
    of: str = "",
    error: type[RefinersError] = AdapterError,
) -> int:
    """Returns a whole number within bounds, both included.

    Args:
        name: The option.
        value: Its value; True, False and 2.0 are not whole numbers.
        usual: The value of the hint.
        low: The lower bound.
        high: The upper bound.
        of: The key of the adapter, where the message has to name it.
        error: The kind of error.

    Raises:
        RefinersError: The value is another one; of the kind `error`.

    Example:
        >>> whole("steps", 3, 30)
        3
    """
    if not is_whole(value) or not low <= value <= high:
        bounds = f" from {low} on" if high == math.inf else f" in {low}...{high:g}"
        raise error(
            f"{_named(name, of)} is a whole number{bounds}, not {described(value)}.",
            hint=f"Try {name}={usual}.",
        )
    return int(value)


def flag(name: str, value: Any, usual: bool, *, error: type[RefinersError] = AdapterError) -> bool:
    """Returns True or False.

    Args:
        name: The option.
        value: Its value.
        usual: The value of the hint.
        error: The kind of error.

    Raises:
        RefinersError: The value is neither; of the kind `error`.

    Example:
        >>> flag("per_channel", False, True)
        False
    """
    if not isinstance(value, bool):
        raise error(
            f"{name} is True or False, not {described(value)}.", hint=f"Try {name}={usual}."
        )
    return value


def choice(
    name: str, value: Any, choices: Sequence[Any], *, error: type[RefinersError] = AdapterError
) -> Any:
    """Returns one of several values.

    Args:
        name: The option.
        value: Its value.
        choices: The values that it may have; the first one is that of the hint.
        error: The kind of error.

    Raises:
        RefinersError: The value is another one; of the kind `error`.

    Example:
        >>> choice("blend", "join", ["join", "average"])
        'join'
    """
    if not any(type(value) is type(it) and value == it for it in choices):
        listed = " or ".join(str(it) for it in choices) if len(choices) == 2 else ""
        listed = listed or f"one of {', '.join(str(it) for it in choices)}"
        first = f'"{choices[0]}"' if isinstance(choices[0], str) else choices[0]
        raise error(f"{name} is {listed}, not {described(value)}.", hint=f"Try {name}={first}.")
    return value


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number; True and False are not.

    Example:
        >>> is_number(0.5), is_number(float("nan"))
        (True, False)
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Returns whether a value is a whole number; True, False and 2.0 are not.

    Example:
        >>> is_whole(2), is_whole(2.0)
        (True, False)
    """
    return not isinstance(value, bool) and isinstance(value, Integral)


def described(value: Any) -> str:
    """Returns a value for a message: short, and a tensor by shape and dtype.

    Example:
        >>> described([1, 2])
        '[1, 2]'
    """
    if isinstance(value, str | int | float | list | tuple | None):
        return reprlib.repr(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return f"a value of type {type(value).__name__}"


def _named(name: str, of: str) -> str:
    return f"the {name} of {of}" if of else name


def _bounds(low: float, high: float) -> str:
    if high < math.inf:
        return f" in {low:g}...{high:g}" if low > -math.inf else f" of at most {high:g}"
    return f" of at least {low:g}" if low > -math.inf else ""
