"""Samplers as data: what a recipe records of one, and the sampler of such a record."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

import msgspec

from refiners_core.errors import GenerationError, RefinersError
from refiners_core.models.samplers import SAMPLERS, Sampler, ScheduleConfig

_MOST: Final = 100_000
"""The most training steps of a sampler that is read; each takes memory."""


def sampler_data(sampler: Sampler) -> dict[str, Any]:
    """Returns the name and all fields of a sampler; of one without a name, its class alone."""
    name = next((name for name, kind in SAMPLERS.items() if type(sampler) is kind), None)
    if name is None:
        return {"object": type(sampler).__name__}
    return {"name": name, **_fields(sampler)}


def steps_data(
    sampler: Sampler, *, timesteps: Any = None, sigmas: Any = None
) -> dict[str, int | list[float]]:
    """Returns the argument of `generate` that gives a sampler its steps.

    Args:
        sampler: The sampler with its steps.
        timesteps: The explicit timesteps, if it has some: numbers in any sequence or tensor.
        sigmas: The explicit sigmas, likewise.
    """
    for name, values in (("timesteps", timesteps), ("sigmas", sigmas)):
        if values is not None:
            return {name: [getattr(value, "item", lambda value=value: value)() for value in values]}
    return {"steps": sampler.steps}


def sampler_of(data: Mapping[str, Any]) -> Sampler:
    """Returns the sampler of `sampler_data`, each field checked against its type.

    Raises:
        GenerationError: The data name an unknown sampler or field, or a value is invalid.
    """
    kind = SAMPLERS.get(str(data.get("name")))
    if kind is None:
        what = data.get("name") or data.get("object")
        raise GenerationError(
            f"the sampler of the recipe, {what!r}, is unknown.",
            hint='Pass one: sampler="ddim".',
        )
    content = {name: value for name, value in data.items() if name != "name"}
    schedule: Any = content.get("schedule")
    unknown = [name for name in content if name not in _names(kind)]
    if isinstance(schedule, Mapping):
        schedule = cast("Mapping[str, Any]", schedule)
        unknown += [name for name in schedule if name not in _names(ScheduleConfig)]
    try:
        if unknown:
            raise ValueError(f"it has no {' and no '.join(unknown)}")
        sampler = msgspec.convert(content, kind)
        if sampler.schedule.train_steps > _MOST or sampler.steps > _MOST:
            raise ValueError(f"it has more than {_MOST} steps")
    except (ValueError, TypeError, RefinersError) as error:
        raise GenerationError(
            f"the sampler of the recipe, {data['name']!r}, cannot be made: {error}",
            hint=f"Pass it without its settings: sampler={data['name']!r}.",
        ) from error
    return sampler


def _fields(value: Any) -> dict[str, Any]:
    return {
        item.name: _fields(part) if is_dataclass(part) else part
        for item in fields(value)
        if item.name != "explicit"  # which `steps_data` has
        and (part := getattr(value, item.name)) is not None
    }


def _names(kind: type[Any]) -> set[str]:
    return {item.name for item in fields(kind)}
