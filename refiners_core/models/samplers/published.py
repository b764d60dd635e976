"""Reading the `scheduler_config.json` that stands beside published weights."""

from collections.abc import Mapping
from typing import Any, Final

from refiners_core.models.published import Published
from refiners_core.models.samplers.consistency import LCM, TCD
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.dpm import DPM2M, DPM2MSDE
from refiners_core.models.samplers.euler import Euler, EulerAncestral
from refiners_core.models.samplers.sampler import Sampler
from refiners_core.models.samplers.schedule import ScheduleConfig

_PLAIN: Final[dict[str, type[Sampler]]] = {
    "EulerDiscreteScheduler": Euler,
    "EulerAncestralDiscreteScheduler": EulerAncestral,
}
_SOLVERS: Final[dict[str, type[Sampler]]] = {"dpmsolver++": DPM2M, "sde-dpmsolver++": DPM2MSDE}
_DISTILLED: Final[dict[str, type[LCM] | type[TCD]]] = {"LCMScheduler": LCM, "TCDScheduler": TCD}


def sampler_from_json(data: Mapping[str, Any]) -> Sampler:
    """Returns the sampler that a published file names, or DDIM where it is none of ours.

    Raises:
        ModelError: The noise that it describes is not known here.

    Example:
        >>> type(sampler_from_json({"_class_name": "LCMScheduler"})).__name__
        'LCM'
    """
    schedule = ScheduleConfig.from_json(data)
    kind = str(data.get("_class_name"))
    if kind in _PLAIN:
        return _PLAIN[kind](schedule)
    if kind in _DISTILLED:
        read = Published(data, kind)
        read.only("timestep_scaling", 10.0)
        many = read.value("original_inference_steps", 50)
        return _DISTILLED[kind](schedule, distilled_steps=many)
    is_known = data.get("solver_order", 2) == 2 and data.get("solver_type") in (None, "midpoint")
    solver = _SOLVERS.get(data.get("algorithm_type") or "dpmsolver++")
    if kind == "DPMSolverMultistepScheduler" and is_known and solver is not None:
        return solver(schedule)
    return DDIM(schedule)
