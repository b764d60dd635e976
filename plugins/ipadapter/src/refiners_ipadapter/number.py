"""The check of a strength that a user may change between generations."""

import math
from numbers import Real

from refiners_core.errors import AdapterError


def check_number(value: object, name: str, adapter: str) -> None:
    """Checks that a strength is a finite number.

    Raises:
        AdapterError: The value is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise AdapterError(
            f"the {name} of {adapter} is a finite number, not {value!r}.", hint=f"Try {name}=1.0."
        )
