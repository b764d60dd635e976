"""Sizes of windows in pixels."""

from typing import Any

from refiners_core.errors import AdapterError


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
