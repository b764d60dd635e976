"""Samplers by name, with the settings that a model is published with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, get_args

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.consistency import Distilled
from refiners_core.models.samplers.diffusers_scheduler import known_sampler, to_published
from refiners_core.models.samplers.dpm import DPM3MSDE
from refiners_core.models.samplers.restart import Restart
from refiners_core.models.samplers.sampler import Sampler
from refiners_core.models.samplers.schedule import ScheduleConfig
from refiners_core.models.samplers.table import SCHEDULER, stated
from refiners_core.sampler_name import (
    SAMPLER_NAMES,
    SigmaSpacing,
    Spacing,
    find_name,
    nearest_name,
)

_VARIANTS: Final[Mapping[str, type[Sampler]]] = {"dpm++-3m-sde": DPM3MSDE, "restart": Restart}
"""Samplers that diffusers lacks, which visit the levels of one that it has."""


def named_sampler(
    name: str, published: Mapping[str, Any] | ScheduleConfig | None = None
) -> Sampler:
    """Returns a sampler by name, with the settings that a model is published with.

    A setting that the file states holds for every sampler that reads it; others have the default of
    the sampler, as with `Scheduler.from_config` of diffusers. A name of our own fixes what it says,
    such as the order of `dpm++-2m`.

    Args:
        name: One of ours, such as `dpm++-2m`, one of A1111's or ComfyUI's, or a class of diffusers;
            a spacing may follow, as in `DPM++ 2M Karras`.
        published: The content of a `scheduler_config.json`, or a noise schedule; that of Stable
            Diffusion 1.5 by default.

    Raises:
        GenerationError: The name is unknown, or the class of diffusers has settings in the file
            that are not supported.
        ModelError: A setting of the file is not supported.

    Example:
        >>> named_sampler("Euler a").with_steps(3).timesteps
        (999, 499.5, 0)
    """
    request = find_name(name)
    if request is None:
        raise GenerationError(
            f"sampler is one of {', '.join(SAMPLER_NAMES)}; got {name!r}.",
            hint=f"Try sampler={nearest_name(name)!r}.",
        )
    if published is None or isinstance(published, ScheduleConfig):
        published = to_published(published or ScheduleConfig())
    data = {key: value for key, value in stated(published).items() if SCHEDULER.has(key)}
    settings = {} if request.entry is None else request.entry.settings
    sampler = known_sampler({**data, **settings, "_class_name": request.scheduler})
    if sampler is None:
        raise GenerationError(
            f"{request.scheduler} is not supported with the settings that this model is published "
            "with.",
            hint='Try sampler="dpm++-2m".',
        )
    if request.entry is not None and request.entry.name in _VARIANTS:
        sampler = _VARIANTS[request.entry.name](sampler.schedule)
    if request.spacing is None:
        return sampler
    if isinstance(sampler, Distilled) and request.spacing != "sgm-uniform":
        raise GenerationError(
            f"{name} names the spacing {request.spacing}, but {type(sampler).__name__} visits the "
            "training steps at which a model was distilled.",
            hint=f"Try sampler={type(sampler).__name__.lower()!r}.",
        )
    return replace(sampler, schedule=_spaced(sampler.schedule, request.spacing))


def _spaced(schedule: ScheduleConfig, spacing: Spacing) -> ScheduleConfig:
    """Returns a schedule with another spacing; one of sigma lies between the ends of the old."""
    if spacing not in get_args(SigmaSpacing):
        return replace(schedule, spacing=spacing, ends=None)
    plain = schedule.ends if schedule.is_spaced_in_sigma else schedule.spacing
    return replace(schedule, spacing=spacing, ends=plain)
