"""Checks of the numbers that adapters take as options."""

import math
from typing import Any

from refiners_core.errors import AdapterError


def number(
    name: str, value: Any, usual: float, *, least: float = 0.0, most: float = math.inf
) -> float:
    """Returns a finite number within bounds, both included.

    Args:
        name: The option.
        value: Its value.
        usual: The value of the hint.
        least: The lower bound; minus infinity for none.
        most: The upper bound; infinity for none.

    Raises:
        AdapterError: The value is another one.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        bounds = f" in {least:g}...{most:g}" if most < math.inf else f" of at least {least:g}"
        raise AdapterError(
            f"{name} is a finite number{'' if least == -math.inf else bounds}, not {value!r}.",
            hint=f"Try {name}={usual:g}.",
        )
    return float(value)
