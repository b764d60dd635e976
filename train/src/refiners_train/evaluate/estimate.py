"""A measured value with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

_Z: Final = 1.959964
"""The quantile of the normal distribution that leaves 2.5 % on each side."""
RESAMPLES: Final = 2000
"""The number of resamples of a bootstrap."""


class Estimate(msgspec.Struct, frozen=True):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return number(self.value)

    @property
    def spread(self) -> str:
        """The interval, as `0.93...1.00`."""
        return f"{number(self.low)}...{number(self.high)}"


def number(value: float) -> str:
    """Returns a number for a table: two decimals, or one from 10 on."""
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def wilson(hits: int, count: int) -> Estimate:
    """Returns a share and Wilson's score interval, which stays within 0...1 (Wilson 1927)."""
    share, z2 = hits / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # the ends are exact where rounding would put the share itself outside
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def bootstrap(outcomes: Sequence[Any], statistic: Callable[[Sequence[Any]], float]) -> Estimate:
    """Returns a statistic and its percentile interval over resamples of the samples.

    The resamples are the same for every call (Efron and Tibshirani 1993, section 13.3).
    """
    random, count = np.random.default_rng(0), len(outcomes)
    rows = random.integers(0, count, (RESAMPLES, count))
    values = [statistic([outcomes[i] for i in row]) for row in rows.tolist()]
    low, high = np.quantile(values, (0.025, 0.975))
    return Estimate(float(statistic(outcomes)), float(low), float(high))
