"""The noise levels of explicit lists of timesteps or sigmas."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, cast

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.schedule import ScheduleConfig
from refiners_core.option import is_number

_SLACK: Final = 1.001
"""How far a sigma may exceed the highest trained one: published lists are rounded."""


def levels_of_timesteps(
    schedule: ScheduleConfig, timesteps: Any, reads_fractions: bool
) -> tuple[Level, ...]:
    """Returns the level of each timestep.

    Args:
        schedule: The noise that the network was trained with.
        timesteps: Training steps, or points between two, noisiest first.
        reads_fractions: Whether points between two training steps stay there; as released, others
            are rounded down.

    Raises:
        GenerationError: The timesteps are not numbers that decrease within the training steps.
    """
    last = schedule.train_steps - 1
    bounds = f"from at most {last} down to at least 0"
    items = _decreasing("timesteps", timesteps, bounds, "[999, 749, 499, 249]")
    if not items or not 0 <= items[-1] <= items[0] <= last:
        raise _refusal("timesteps", timesteps, bounds, "[999, 749, 499, 249]")
    whole = [item if reads_fractions and item != int(item) else int(item) for item in items]
    return tuple(schedule.level(item) for item in whole)


def levels_of_sigmas(
    schedule: ScheduleConfig, sigmas: Any, reads_fractions: bool
) -> tuple[Level, ...]:
    """Returns the level of each sigma, that of the end included.

    Args:
        schedule: The noise that the network was trained with.
        sigmas: Noise over signal at which each step begins, noisiest first, and at which the last
            ends.
        reads_fractions: Whether the network reads timesteps between two training steps.

    Raises:
        GenerationError: The sigmas are not numbers that decrease within the trained ones.
    """
    trained, example = schedule.trained, "[14.6, 2.7, 0.6, 0.0]"
    bounds = f"from at most {trained.high:.6g} down to the end, at least 0"
    items = _decreasing("sigmas", sigmas, bounds, example)
    if len(items) < 2 or not 0 <= items[-1] < items[0] <= trained.high * _SLACK:
        raise _refusal("sigmas", sigmas, bounds, example)
    timesteps = [trained.timestep(item) for item in items]
    if not reads_fractions:
        timesteps = [round(item) for item in timesteps]
    return tuple(
        Level.of_sigma(sigma, timestep) if sigma else CLEAN
        for sigma, timestep in zip(items, timesteps, strict=True)
    )


def _decreasing(name: str, values: Any, bounds: str, example: str) -> list[float]:
    items: Any = values.tolist() if isinstance(values, Tensor) else values
    is_list = isinstance(items, Sequence) and not isinstance(items, str | bytes)
    if not is_list or not all(is_number(item) for item in cast(Sequence[Any], items)):
        raise _refusal(name, values, bounds, example)
    numbers = [float(item) for item in items]
    if any(after >= before for before, after in pairwise(numbers)):
        raise _refusal(name, values, bounds, example)
    return numbers


def _refusal(name: str, values: Any, bounds: str, example: str) -> GenerationError:
    shown = repr(values.tolist() if isinstance(values, Tensor) else values)
    shown = shown if len(shown) < 80 else f"{shown[:76]} ..."
    return GenerationError(
        f"{name} is a list of numbers that decrease, {bounds}; got {shown}.",
        hint=f"Try {name}={example}.",
    )
