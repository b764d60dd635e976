"""Reading the noise schedule of a published `scheduler_config.json`."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from refiners_core.errors import ModelError
from refiners_core.models.config_reader import Published
from refiners_core.models.samplers.limit import Limit
from refiners_core.models.samplers.table import BACKWARDS, SCHEDULER, WRITERS, heeded, stated
from refiners_core.sampler_name import SigmaSpacing

FILE: Final = "scheduler_config.json"
PREDICTIONS: Final = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""The published names of predictions, and ours."""
_IGNORING_CLIPS: Final = ("TCDScheduler",)
"""Classes that read limits of clean latents and do not apply them."""


def published_schedule(data: Mapping[str, Any]) -> tuple[dict[str, Any], Published]:
    """Returns the fields of a `ScheduleConfig`, and the reader of the file's other settings.

    A spacing that the file does not state is None, so that each sampler takes its own.

    Args:
        data: The content of a `scheduler_config.json`.

    Raises:
        ModelError: The class or one of its settings is not supported.
    """
    data = stated(data)
    kind = str(data.get("_class_name") or "DDIMScheduler")
    if kind in BACKWARDS or (kind not in WRITERS and data.get("beta_start") is None):
        raise ModelError(
            f"{kind} is a scheduler for another noise schedule, or from images to noise.",
            hint="Models with DDIM's noise schedule are supported: those of DDIMScheduler, "
            "EulerDiscreteScheduler, DPMSolverMultistepScheduler and so on.",
        )
    if kind in WRITERS:
        Published(data, kind, file=FILE).refuse(SCHEDULER.unknown(data))
    read = Published(heeded(data), kind, file=FILE)
    for key, allowed in SCHEDULER.fixed.items():
        read.only(key, *allowed)
    writer = WRITERS.get(kind, WRITERS["DDIMScheduler"])
    prediction = read.value("prediction_type", "epsilon")
    spacing = read.value("timestep_spacing", "") or None
    in_sigma = _sigma_spacing(read)
    final = read.value("final_sigmas_type", "zero")
    if final not in ("zero", "sigma_min"):
        raise read.refusal("final_sigmas_type", "'zero' or 'sigma_min'")
    if kind == "UniPCMultistepScheduler" and in_sigma and final == "sigma_min":
        raise read.refusal("final_sigmas_type", "'zero', as the last step would have no length")
    if prediction == "v_prediction":
        read.only("timestep_type", "discrete")
    fields: dict[str, Any] = {
        "train_steps": read.value("num_train_timesteps", 1000),
        "beta_start": read.value("beta_start", writer.beta_start),
        "beta_end": read.value("beta_end", writer.beta_end),
        "betas": read.value("beta_schedule", writer.betas),
        "prediction": PREDICTIONS.get(prediction, prediction),
        "spacing": in_sigma or spacing,
        "ends": spacing if in_sigma else None,
        "steps_offset": read.value("steps_offset", 0),
        "is_final_clean": read.value("set_alpha_to_one", writer.is_final_clean),
        "has_zero_snr": read.value("rescale_betas_zero_snr", False),
        "has_final_noise": final == "sigma_min",
        "limit": None if kind in _IGNORING_CLIPS else _limit(read),
    }
    return fields, read


def _sigma_spacing(read: Published) -> str | None:
    """Returns the spacing of sigma that a file asks for."""
    flags = {name: f"use_{name}_sigmas" for name in get_args(SigmaSpacing)}
    names = [name for name, flag in flags.items() if read.value(flag, False)]
    if len(names) > 1:
        raise read.refusal(flags[names[1]], f"False beside {flags[names[0]]}")
    if not names:
        return None
    read.only("sigma_min", None)
    read.only("sigma_max", None)
    return names[0]


def _limit(read: Published) -> Limit | None:
    """Returns the limit of clean latents; a class that is named in the file has its own default."""
    if read.value("thresholding", False):
        return Limit(
            read.value("sample_max_value", 1.0), read.value("dynamic_thresholding_ratio", 0.995)
        )
    named = WRITERS.get(str(read.data.get("_class_name")))
    if read.value("clip_sample", named is not None and named.is_clipped):
        return Limit(read.value("clip_sample_range", 1.0))
    return None
