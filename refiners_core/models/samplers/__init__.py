"""Samplers as values, each a noise schedule and an update rule."""

from typing import Final

from refiners_core.models.samplers.consistency import LCM, TCD
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.diffusers_scheduler import sampler_from_json
from refiners_core.models.samplers.dpm import DPM2M, DPM2MSDE
from refiners_core.models.samplers.euler import Euler, EulerAncestral
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler, Step, Stepped
from refiners_core.models.samplers.schedule import ScheduleConfig

SAMPLERS: Final[dict[str, type[Sampler]]] = {
    "ddim": DDIM,
    "euler": Euler,
    "euler-ancestral": EulerAncestral,
    "dpm++-2m": DPM2M,
    "dpm++-2m-sde": DPM2MSDE,
    "lcm": LCM,
    "tcd": TCD,
}
"""The samplers by their names in `generate(sampler=...)`."""

__all__ = [
    "DDIM",
    "DPM2M",
    "DPM2MSDE",
    "LCM",
    "SAMPLERS",
    "TCD",
    "Euler",
    "EulerAncestral",
    "Level",
    "Sampler",
    "ScheduleConfig",
    "Step",
    "Stepped",
    "sampler_from_json",
]
