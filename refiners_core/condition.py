"""What a generation says to one adapter: a value, how strongly, when and where."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

from refiners_core.errors import ConditionError


@dataclass(frozen=True)
class Condition:
    """A value for an adapter, with a strength, a span of steps and a place in the picture.

    Raises:
        ConditionError: A number is none, or out of range.

    Example:
        >>> Condition("edges", end=0.5).is_active(step=9, steps=20)
        True
        >>> Condition("edges", end=0.5).is_active(step=10, steps=20)
        False
    """

    value: Any = None
    """What the adapter looks at; None for an adapter that takes nothing."""
    scale: float = 1.0
    """How strongly; at 0 the adapter is skipped, and the result is bit for bit that without it."""
    start: float = 0.0
    """The share of the steps, in 0...1, after which the adapter sets in."""
    end: float = 1.0
    """The share of the steps, in 0...1, at which it ends."""
    mask: Any = None
    """Where it acts: a picture or a tensor (1, 1, height, width) in 0...1, 1 where it does."""

    def __post_init__(self) -> None:
        for name in ("scale", "start", "end"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ConditionError(
                    f"the {name} of a condition is a finite number, not {value!r}.",
                    hint=f"Try {name}=1.0.",
                )
        if not 0 <= self.start <= self.end <= 1:
            raise ConditionError(
                f"a condition acts between two shares of the steps, 0 <= start <= end <= 1; got "
                f"start={self.start}, end={self.end}.",
                hint="Try Condition(value, start=0.0, end=0.5) for the first half.",
            )
        if isinstance(self.value, Condition):
            raise ConditionError(
                "the value of a condition is itself a condition.",
                hint="Write one Condition(value, ...).",
            )

    def is_active(self, step: int, steps: int) -> bool:
        """Whether it acts at a step, counted from 0, of so many steps."""
        return self.scale != 0 and step / steps >= self.start and (step + 1) / steps <= self.end
