"""The calls of a generation in which a cached network runs in full."""

from functools import lru_cache

from refiners_core.errors import ConditionError


@lru_cache
def quadratic_calls(total: int, interval: int, center: int, power: float) -> frozenset[int]:
    """Returns calls that lie densest around one of them (DeepCache, arXiv:2312.00858, section 3.3).

    As in the authors' code: points are spaced evenly in the `power`-th root of the distance to the
    center. Roots of the negative distances before it are complex there, and powers of the points
    in between lose their imaginary part. If points fall together, the power is lowered.

    Args:
        total: The number of calls.
        interval: The mean interval, so that there are `total / interval` full calls, rounded up.
        center: The call around which they lie densest.
        power: The power, at least 1.02.

    Raises:
        ConditionError: The center is not one of the calls, or there are not as many different calls
            for any power above 1.
    """
    if center >= total:
        raise ConditionError(
            f"center={center} lies beyond the {total} calls, which are counted from 0.",
            hint="Leave center out for equal intervals, or take an earlier one.",
        )
    count = -(-total // interval)
    exponent = power
    while exponent > 1:
        begin = complex(-center) ** (1 / exponent)
        end = complex(total - center) ** (1 / exponent)
        points = [begin + (end - begin) * i / count for i in range(count + 1)]
        distances = sorted({int((point**exponent).real) for point in points})
        calls = [0, *[distance + center for distance in distances[1:-1]]]
        if len(calls) == count:
            return frozenset(calls)
        exponent -= 0.02
    raise ConditionError(
        f"{count} full calls of {total} cannot be spread around call {center} with a power of up "
        f"to {power:g}.",
        hint="Take another center or interval, or leave center out for equal intervals.",
    )
