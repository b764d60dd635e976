"""Scales: how strongly an adapter acts, by place, over the steps and by picture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import pairwise
from typing import Any, cast

from refiners_core.errors import ConditionError
from refiners_core.option import is_number

Scale = float | Mapping[str, Any] | Callable[[float], Any] | Sequence[Any]
"""A number; a mapping of places to scales; a schedule, which is a function of the progress in 0...1
or a list of pairs (progress, scale); or a list of a scale for each picture, which may be a tensor.
Scales nest, but neither places in places nor pictures in pictures."""

Fixed = float | dict[str, Any] | tuple[Any, ...]
"""A checked scale at one step: a number, scales by place, or a scale for each picture."""

_PLACES, _PICTURES = "places", "pictures"


@dataclass(frozen=True)
class Ramp:
    """A schedule that is linear between points, and constant before the first and after the last.

    Args:
        points: Pairs of a progress in 0...1, ascending, and the checked scale there.
    """

    points: tuple[tuple[float, Any], ...]

    def __call__(self, progress: float) -> Any:
        """Returns the scale at a progress in 0...1; where two points meet, that of the later."""
        before = [point for point in self.points if point[0] <= progress]
        after = [point for point in self.points if point[0] > progress]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (start, low), (end, high) = before[-1], after[0]
        return _between(low, high, (progress - start) / (end - start))


def checked_scale(
    scale: Any,
    name: str = "scale of a condition",
    allowed: frozenset[str] = frozenset((_PLACES, _PICTURES)),
) -> Any:
    """Returns a scale in its normal form: floats, dicts by place, tuples by picture, functions.

    Args:
        scale: The scale.
        name: What it is the scale of, for messages.
        allowed: What it may be divided by: `places`, `pictures`.

    Raises:
        ConditionError: The value is not a scale.
    """
    plain: Any = scale.tolist() if hasattr(scale, "tolist") else scale  # a tensor or an array
    if is_number(plain):
        return float(plain)
    if callable(plain) and not isinstance(plain, type):
        return _checked_function(plain, name)
    if isinstance(plain, Mapping) and _PLACES in allowed:
        by_place = cast("Mapping[Any, Any]", plain)
        if all(isinstance(place, str) for place in by_place):
            rest = allowed - {_PLACES}
            return {
                place: checked_scale(part, f"{name} at {place}", rest)
                for place, part in by_place.items()
            }
    if isinstance(plain, list | tuple) and plain:
        parts = cast("Sequence[Any]", plain)
        if all(_is_pair(part) for part in parts):
            return _ramp(parts, name, allowed - {_PLACES})
        if _PICTURES in allowed:
            rest = allowed - {_PICTURES}
            each = f"{name} for picture or text"
            numbered = enumerate(parts, 1)
            return tuple([checked_scale(part, f"{each} {i}", rest) for i, part in numbered])
    raise ConditionError(
        f"the {name} is a finite number, not {scale!r}.",
        hint='Try scale=1.0; {"unet.mid": 0.5} sets it by place, [(0.0, 1.0), (0.5, 0.2)] over the '
        "steps, [1.0, 0.5] for each of two pictures or texts.",
    )


def fixed(scale: Any, progress: float) -> Fixed:
    """Returns a checked scale at a progress in 0...1, where schedules are evaluated.

    Raises:
        ConditionError: A function returned something that is not a scale.
    """
    if isinstance(scale, dict):
        by_place = cast("dict[str, Any]", scale)
        return {place: fixed(part, progress) for place, part in by_place.items()}
    if isinstance(scale, tuple):
        return tuple([fixed(part, progress) for part in cast("tuple[Any, ...]", scale)])
    if isinstance(scale, int | float):
        return scale
    name = f"scale of a condition at progress {progress:.3g}"
    return fixed(checked_scale(scale(progress), name), progress)


def is_zero(scale: Fixed) -> bool:
    """Whether a scale is 0 at every place and in every picture."""
    return scale == 0 if isinstance(scale, int | float) else all(map(is_zero, _parts(scale)))


def is_off(scale: Any) -> bool:
    """Whether a checked scale is 0 at every place and in every picture; a function never is."""
    if isinstance(scale, dict | tuple):
        return all(map(is_off, _parts(cast("dict[str, Any]", scale))))
    return scale == 0


def places_in(scale: Fixed) -> Iterator[str]:
    """Yields the names of places in a scale."""
    if isinstance(scale, dict):
        yield from scale
    for part in () if isinstance(scale, int | float) else _parts(scale):
        yield from places_in(part)


def by_picture(
    scale: Fixed, names: Sequence[str], count: int, adapter: str = "a condition"
) -> tuple[float, ...]:
    """Returns the scale in each picture at one place.

    Args:
        scale: The scale at one step.
        names: The names that include the place, the most specific first. Of those in a mapping the
            first one counts; without any the scale is 0.
        count: The number of pictures.
        adapter: The adapter, for messages.

    Raises:
        ConditionError: A list has another number of scales than there are pictures.
    """
    if isinstance(scale, int | float):
        return (scale,) * count
    if isinstance(scale, dict):
        name = next((name for name in names if name in scale), None)
        return (0.0,) * count if name is None else by_picture(scale[name], names, count, adapter)
    if len(scale) != count:
        raise ConditionError(
            f"{adapter} has {len(scale)} scales for {count} picture{'s' * (count != 1)}.",
            hint="Pass one scale for all pictures or one for each, or make as many: "
            f"count={len(scale)}.",
        )
    return tuple([by_picture(part, names, count, adapter)[i] for i, part in enumerate(scale)])


def recorded_scale(scale: Any, steps: int) -> Any:
    """Returns a checked scale as plain data, which is the same scale in a run of as many steps.

    A function becomes the pairs of progress and scale that it gives these steps. One that returns
    scales by place cannot be recorded and stays.
    """
    if isinstance(scale, dict):
        by_place = cast("dict[str, Any]", scale)
        return {place: recorded_scale(part, steps) for place, part in by_place.items()}
    if isinstance(scale, tuple):
        return [recorded_scale(part, steps) for part in cast("tuple[Any, ...]", scale)]
    if isinstance(scale, Ramp):
        return [[progress, recorded_scale(part, steps)] for progress, part in scale.points]
    if not callable(scale):
        return scale
    points = [(step / steps, fixed(scale, step / steps)) for step in range(steps)]
    if any(any(places_in(part)) for _, part in points):
        return scale
    return [[progress, recorded_scale(part, steps)] for progress, part in points]


def _checked_function(function: Callable[..., Any], name: str) -> Callable[[float], Any]:
    try:
        signature(function).bind(0.0)
    except TypeError as error:
        raise ConditionError(
            f"the {name} is a function that cannot be called with the progress alone: {error}.",
            hint="Try scale=lambda progress: 1 - progress.",
        ) from error
    except ValueError:  # a builtin without a signature
        pass
    return function


def _parts(scale: dict[str, Any] | tuple[Any, ...]) -> Sequence[Any]:
    return tuple(scale.values()) if isinstance(scale, dict) else scale


def _is_pair(part: Any) -> bool:
    return isinstance(part, list | tuple) and len(cast("Sequence[Any]", part)) == 2


def _ramp(parts: Sequence[Any], name: str, allowed: frozenset[str]) -> Ramp:
    progress = [part[0] for part in parts]
    if not all(map(is_number, progress)) or not all(a <= b for a, b in pairwise([0, *progress, 1])):
        raise ConditionError(
            f"the {name} is a list of pairs, whose first numbers are a progress in 0...1 and "
            f"ascend; got {', '.join(map(str, progress))}.",
            hint="Try [(0.0, 1.0), (0.5, 0.2)]: from 1 to 0.2 in the first half of the steps.",
        )
    checked = [checked_scale(part[1], f"{name} at progress {part[0]}", allowed) for part in parts]
    counts = {len(cast("Any", value)) for value in checked if isinstance(value, tuple)}
    if len(counts) > 1:
        raise ConditionError(
            f"the {name} is a list of pairs for {' and '.join(map(str, sorted(counts)))} pictures.",
            hint="Pass a number or as many numbers in every pair.",
        )
    if any(callable(value) for value in checked):
        raise ConditionError(
            f"the {name} is a list of pairs (progress, scale) with a schedule inside.",
            hint="Put numbers into the pairs, or pass one function of the progress.",
        )
    return Ramp(tuple(zip(map(float, progress), checked, strict=True)))


def _between(low: Any, high: Any, share: float) -> Any:
    """Returns the scale between two, which are numbers or numbers by picture."""
    if isinstance(low, float) and isinstance(high, float):
        return low + (high - low) * share
    count = len(high if isinstance(low, float) else low)
    lows = (low,) * count if isinstance(low, float) else low
    highs = (high,) * count if isinstance(high, float) else high
    return tuple([_between(*pair, share) for pair in zip(lows, highs, strict=True)])
