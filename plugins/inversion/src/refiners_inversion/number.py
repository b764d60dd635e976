"""A check of the numbers that adapters of this package take."""

import math
from typing import Any

from refiners_core.errors import AdapterError


def number(name: str, value: Any, example: float) -> float:
    """Returns a number from 0 on.

    Args:
        name: The name of the argument, for messages.
        value: The value of the argument.
        example: A good value, for the hint.

    Raises:
        AdapterError: The value is not such a number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise AdapterError(
            f"{name} is a number from 0 on, not {value!r}.", hint=f"Try {name}={example}."
        )
    return float(value)
