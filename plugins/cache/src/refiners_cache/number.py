"""Checks of the numbers that adapters take as options."""

import math
from typing import Any

from refiners_core.errors import AdapterError


def whole(name: str, value: Any, usual: int, *, least: int = 0, most: int | None = None) -> int:
    """Returns a whole number within bounds, both included.

    Args:
        name: The option.
        value: Its value.
        usual: The value of the hint.
        least: The lower bound.
        most: The upper bound; None for none.

    Raises:
        AdapterError: The value is another one.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"in {least}...{most}"
        raise AdapterError(
            f"{name} is a whole number {bounds}, not {value!r}.", hint=f"Try {name}={usual}."
        )
    return value


def number(name: str, value: Any, usual: float, *, least: float = 0.0) -> float:
    """Returns a finite number.

    Args:
        name: The option.
        value: Its value.
        usual: The value of the hint.
        least: The lower bound, included; minus infinity for none.

    Raises:
        AdapterError: The value is another one.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < least:
        bounds = "" if least == -math.inf else f" of at least {least:g}"
        raise AdapterError(
            f"{name} is a finite number{bounds}, not {value!r}.", hint=f"Try {name}={usual:g}."
        )
    return float(value)
