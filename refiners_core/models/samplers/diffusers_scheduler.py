"""Reading the sampler from the `scheduler_config.json` beside published weights."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from refiners_core.errors import Notice
from refiners_core.models.config_reader import Published
from refiners_core.models.samplers.consistency import LCM, TCD
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.ddpm import DDPM
from refiners_core.models.samplers.deis import DEIS
from refiners_core.models.samplers.dpm import DPM2M, DPM2MSDE
from refiners_core.models.samplers.dpm_sde import DPMSDE
from refiners_core.models.samplers.euler import Euler, EulerAncestral
from refiners_core.models.samplers.heun import Heun
from refiners_core.models.samplers.kdpm2 import KDPM2, KDPM2Ancestral
from refiners_core.models.samplers.lms import LMS
from refiners_core.models.samplers.pndm import PLMS, PNDM
from refiners_core.models.samplers.published import FILE, PREDICTIONS
from refiners_core.models.samplers.sampler import Sampler
from refiners_core.models.samplers.schedule import ScheduleConfig
from refiners_core.models.samplers.table import SCHEDULER, WRITERS, heeded, stated
from refiners_core.models.samplers.unipc import UniPC

_OTHER_ALGORITHMS: Final = {"deis": "dpmsolver++", "data_prediction": "dpmsolver++"}
"""Names that other classes write, and what DPM-Solver makes of them."""
_SOLVERS: Final[dict[str, type[DPM2M]]] = {"dpmsolver++": DPM2M, "sde-dpmsolver++": DPM2MSDE}


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
    data = stated(data)
    sampler = known_sampler(data)
    if sampler is not None:
        return sampler
    kind, schedule = str(data["_class_name"]), ScheduleConfig.from_json(data)
    if kind in WRITERS:
        schedule = replace(schedule, spacing=schedule.spacing or WRITERS[kind].spacing)
    _warn(kind, [] if kind in WRITERS else SCHEDULER.unknown(data))
    return DDIM(schedule)


def known_sampler(data: Mapping[str, Any]) -> Sampler | None:
    """Returns the sampler that published settings name; None if it is not supported.

    Args:
        data: The settings that a `scheduler_config.json` states.

    Raises:
        ModelError: The noise schedule is not supported.
    """
    schedule = ScheduleConfig.from_json(data)
    kind = str(data.get("_class_name") or "DDIMScheduler")
    build = _BUILDERS.get(kind)
    return None if build is None else build(schedule, Published(heeded(data), kind, file=FILE))


def to_published(schedule: ScheduleConfig) -> dict[str, Any]:
    """Returns what a `scheduler_config.json` states of a noise schedule."""
    names = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    plain = schedule.ends if schedule.is_spaced_in_sigma else schedule.spacing
    data: dict[str, Any] = {
        "num_train_timesteps": schedule.train_steps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": schedule.betas,
        "prediction_type": names[schedule.prediction],
        "steps_offset": schedule.steps_offset,
        "set_alpha_to_one": schedule.is_final_clean,
        "rescale_betas_zero_snr": schedule.has_zero_snr,
        "final_sigmas_type": "sigma_min" if schedule.has_final_noise else "zero",
        "clip_sample": False,
    }
    if plain is not None:
        data["timestep_spacing"] = plain
    if schedule.is_spaced_in_sigma:
        data[f"use_{schedule.spacing}_sigmas"] = True
    if (limit := schedule.limit) is not None and limit.quantile is None:
        data |= {"clip_sample": True, "clip_sample_range": limit.most}
    elif limit is not None:
        data |= {"thresholding": True, "sample_max_value": limit.most}
        data["dynamic_thresholding_ratio"] = limit.quantile
    return data


def _plain(kind: type[Sampler]) -> Callable[[ScheduleConfig, Published], Sampler]:
    return lambda schedule, read: kind(schedule)


def _distilled(
    kind: type[LCM] | type[TCD],
) -> Callable[[ScheduleConfig, Published], Sampler]:
    return lambda schedule, read: kind(
        schedule, distilled_steps=read.value("original_inference_steps", 50)
    )


def _pndm(schedule: ScheduleConfig, read: Published) -> Sampler:
    return (PLMS if read.value("skip_prk_steps", False) else PNDM)(schedule)


def _ddpm(schedule: ScheduleConfig, read: Published) -> Sampler:
    variance = read.value("variance_type", "fixed_small")
    return DDPM(schedule, has_large_variance=variance.startswith("fixed_large"))


def _dpm(schedule: ScheduleConfig, read: Published) -> Sampler | None:
    algorithm = read.value("algorithm_type", "dpmsolver++")
    solver = _SOLVERS.get(_OTHER_ALGORITHMS.get(algorithm, algorithm))
    if solver is None or read.value("solver_order", 2) != 2 or _has_solver(read, "heun"):
        return None
    if read.value("euler_at_final", False):
        return solver(schedule, has_first_order_end=True)
    if read.value("lower_order_final", True):
        return solver(schedule)
    return solver(schedule, has_first_order_end=False)


def _deis(schedule: ScheduleConfig, read: Published) -> Sampler | None:
    order = read.value("solver_order", 2)
    is_known = order in (1, 2, 3) and read.value("lower_order_final", True)
    return DEIS(schedule, order=order) if is_known else None


def _unipc(schedule: ScheduleConfig, read: Published) -> Sampler | None:
    order, scale = read.value("solver_order", 2), "bh1" if _has_solver(read, "bh1") else "bh2"
    is_known = read.value("predict_x0", True) and read.value("lower_order_final", True)
    if not is_known or order < 1 or read.data.get("disable_corrector"):
        return None
    if read.data.get("solver_p") is not None:
        return None
    return UniPC(schedule, order=order, scale=scale)


def _has_solver(read: Published, name: str) -> bool:
    return read.value("solver_type", "") == name


_BUILDERS: Final[dict[str, Callable[[ScheduleConfig, Published], Sampler | None]]] = {
    "DDIMScheduler": _plain(DDIM),
    "DDIMParallelScheduler": _plain(DDIM),
    "DDPMScheduler": _ddpm,
    "DDPMParallelScheduler": _ddpm,
    "PNDMScheduler": _pndm,
    "LMSDiscreteScheduler": _plain(LMS),
    "EulerDiscreteScheduler": _plain(Euler),
    "EulerAncestralDiscreteScheduler": _plain(EulerAncestral),
    "HeunDiscreteScheduler": _plain(Heun),
    "KDPM2DiscreteScheduler": _plain(KDPM2),
    "KDPM2AncestralDiscreteScheduler": _plain(KDPM2Ancestral),
    "DPMSolverSDEScheduler": _plain(DPMSDE),
    "DPMSolverMultistepScheduler": _dpm,
    "DEISMultistepScheduler": _deis,
    "UniPCMultistepScheduler": _unipc,
    "LCMScheduler": _distilled(LCM),
    "TCDScheduler": _distilled(TCD),
}


def _warn(kind: str, ignored: list[str]) -> None:
    settings = f", and its settings {', '.join(ignored)} are ignored" if ignored else ""
    warnings.warn(
        f"this model is published with {kind}, which is not supported with its settings; DDIM "
        f"takes its place on the same noise schedule{settings}. "
        'generate(sampler="dpm++-2m") chooses another.',
        Notice,
        stacklevel=3,
    )
