"""Quantiles of the beta distribution, which neither torch nor the standard library has."""

import math
from typing import Final

_TERMS: Final = 24
"""The terms of the continued fraction; up to the mean, 20 are exact for shapes around 1."""


def beta_quantile(share: float, a: float, b: float) -> float:
    """Returns the point below which a beta distribution has a share of its mass.

    Args:
        share: The share, in 0...1.
        a: The first shape parameter, above 0.
        b: The second shape parameter, above 0.

    Example:
        >>> round(beta_quantile(0.5, 0.6, 0.6), 9)
        0.5
    """
    if share <= 0 or share >= 1:
        return min(max(share, 0.0), 1.0)
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if beta_share(middle, a, b) < share else (low, middle)
    return middle


def beta_share(point: float, a: float, b: float) -> float:
    """Returns the share of a beta distribution below a point, the regularised incomplete beta.

    The continued fraction (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.5.8)
    converges fast below the mean; the other side follows by symmetry.

    Args:
        point: The point, in 0...1.
        a: The first shape parameter, above 0.
        b: The second shape parameter, above 0.
    """
    if point > (a + 1) / (a + b + 2):
        return 1 - beta_share(1 - point, b, a)
    if point <= 0:
        return 0.0
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logs + a * math.log(point) + b * math.log1p(-point)) / a
    return front / _fraction(point, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """Returns `1 + d1 / (1 + d2 / (1 + ...))` from its tail, so nothing divides by zero."""
    value = 1.0
    for n in range(_TERMS, 0, -1):
        m = n // 2
        if n % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + d / value
    return value
