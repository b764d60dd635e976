"""Reading the sampler from the `scheduler_config.json` beside published weights."""

import warnings
from collections.abc import Mapping
from typing import Any, Final

from refiners_core.errors import Notice
from refiners_core.models.config_reader import Published
from refiners_core.models.samplers.consistency import LCM, TCD
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.dpm import DPM2M, DPM2MSDE
from refiners_core.models.samplers.euler import Euler, EulerAncestral
from refiners_core.models.samplers.sampler import Sampler
from refiners_core.models.samplers.schedule import FILE, ScheduleConfig
from refiners_core.models.samplers.table import SCHEDULER, WRITERS

_PLAIN: Final[dict[str, type[Sampler]]] = {
    "DDIMScheduler": DDIM,
    "DDIMParallelScheduler": DDIM,
    "EulerDiscreteScheduler": Euler,
    "EulerAncestralDiscreteScheduler": EulerAncestral,
}
_SOLVERS: Final[dict[str, type[Sampler]]] = {"dpmsolver++": DPM2M, "sde-dpmsolver++": DPM2MSDE}
_DISTILLED: Final[dict[str, type[LCM] | type[TCD]]] = {"LCMScheduler": LCM, "TCDScheduler": TCD}


def sampler_from_json(data: Mapping[str, Any]) -> Sampler:
    """Returns the sampler that a published file names, or DDIM on its noise schedule.

    Args:
        data: The content of a `scheduler_config.json`.

    Raises:
        ModelError: The noise schedule is not supported.

    Warns:
        Notice: The sampler is not supported, so DDIM takes its place.

    Example:
        >>> type(sampler_from_json({"_class_name": "LCMScheduler"})).__name__
        'LCM'
    """
    schedule = ScheduleConfig.from_json(data)
    kind = str(data.get("_class_name") or "DDIMScheduler")
    if kind in _PLAIN:
        return _PLAIN[kind](schedule)
    if kind in _DISTILLED:
        distilled_steps = Published(data, kind, file=FILE).value("original_inference_steps", 50)
        return _DISTILLED[kind](schedule, distilled_steps=distilled_steps)
    is_known = data.get("solver_order", 2) == 2 and data.get("solver_type") in (None, "midpoint")
    solver = _SOLVERS.get(data.get("algorithm_type") or "dpmsolver++")
    if kind == "DPMSolverMultistepScheduler" and is_known and solver is not None:
        return solver(schedule)
    _warn(kind, [] if kind in WRITERS else SCHEDULER.unknown(data))
    return DDIM(schedule)


def _warn(kind: str, ignored: list[str]) -> None:
    settings = f", and its settings {', '.join(ignored)} are ignored" if ignored else ""
    warnings.warn(
        f"this model is published with {kind}, which is not supported with its settings; DDIM "
        f"takes its place on the same noise schedule{settings}. "
        'generate(sampler="dpm++-2m") chooses another.',
        Notice,
        stacklevel=3,
    )
