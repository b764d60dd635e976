"""Checks of the numbers that adapters and functions of this package take."""

import math
from typing import Any

from refiners_core.errors import AdapterError


def number(name: str, value: Any, least: float, most: float, example: float) -> float:
    """Returns a number between two others, both included.

    Args:
        name: The name of the argument, for messages.
        value: The value of the argument.
        least: The least number.
        most: The greatest number; infinity for no bound.
        example: A good value, for the hint.

    Raises:
        AdapterError: The value is not such a number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        span = f"in {least:g}...{most:g}" if math.isfinite(most) else f"from {least:g} on"
        raise AdapterError(
            f"{name} is a number {span}, not {value!r}.", hint=f"Try {name}={example:g}."
        )
    return float(value)


def whole(name: str, value: Any, least: int, example: int) -> int:
    """Returns a whole number of at least `least`.

    Args:
        name: The name of the argument, for messages.
        value: The value of the argument.
        least: The least number.
        example: A good value, for the hint.

    Raises:
        AdapterError: The value is not such a number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise AdapterError(
            f"{name} is a whole number from {least} on, not {value!r}.",
            hint=f"Try {name}={example}.",
        )
    return value


def sides(name: str, value: Any, example: int) -> tuple[int, int]:
    """Returns a width and a height in pixels, of one number or two.

    Args:
        name: The name of the argument, for messages.
        value: One side, or (width, height).
        example: A good value, for the hint.

    Raises:
        AdapterError: The value is not one or two positive whole numbers.
    """
    pair = (value, value) if isinstance(value, int) else value
    is_pair = isinstance(pair, tuple | list) and len(pair) == 2
    if not is_pair or not all(type(side) is int and side > 0 for side in pair):
        raise AdapterError(
            f"{name} is a number of pixels, or (width, height), not {value!r}.",
            hint=f"Try {name}={example}.",
        )
    return pair[0], pair[1]
