"""Samplers as values, each a noise schedule and an update rule."""

from typing import Final

from refiners_core.models.samplers.consistency import LCM, TCD
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.ddpm import DDPM
from refiners_core.models.samplers.deis import DEIS
from refiners_core.models.samplers.diffusers_scheduler import sampler_from_json
from refiners_core.models.samplers.dpm import DPM2M, DPM2MSDE, DPM3MSDE
from refiners_core.models.samplers.dpm_sde import DPMSDE
from refiners_core.models.samplers.euler import Euler, EulerAncestral
from refiners_core.models.samplers.heun import Heun
from refiners_core.models.samplers.inverse import Inverse
from refiners_core.models.samplers.kdpm2 import KDPM2, KDPM2Ancestral
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.limit import Limit
from refiners_core.models.samplers.lms import LMS
from refiners_core.models.samplers.named import named_sampler
from refiners_core.models.samplers.pndm import PLMS, PNDM
from refiners_core.models.samplers.restart import Restart
from refiners_core.models.samplers.sampler import Sampler, Step, Stepped
from refiners_core.models.samplers.schedule import ScheduleConfig
from refiners_core.models.samplers.unipc import UniPC

SAMPLERS: Final[dict[str, type[Sampler]]] = {
    "ddim": DDIM,
    "euler": Euler,
    "euler-ancestral": EulerAncestral,
    "heun": Heun,
    "dpm2": KDPM2,
    "dpm2-ancestral": KDPM2Ancestral,
    "lms": LMS,
    "dpm++-2m": DPM2M,
    "dpm++-2m-sde": DPM2MSDE,
    "dpm++-3m-sde": DPM3MSDE,
    "dpm++-sde": DPMSDE,
    "unipc": UniPC,
    "deis": DEIS,
    "pndm": PNDM,
    "plms": PLMS,
    "ddpm": DDPM,
    "restart": Restart,
    "lcm": LCM,
    "tcd": TCD,
}
"""The samplers by their names in `generate(sampler=...)`."""

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPM2M",
    "DPM2MSDE",
    "DPM3MSDE",
    "DPMSDE",
    "KDPM2",
    "LCM",
    "LMS",
    "PLMS",
    "PNDM",
    "SAMPLERS",
    "TCD",
    "Euler",
    "EulerAncestral",
    "Heun",
    "Inverse",
    "KDPM2Ancestral",
    "Level",
    "Limit",
    "Restart",
    "Sampler",
    "ScheduleConfig",
    "Step",
    "Stepped",
    "UniPC",
    "named_sampler",
    "sampler_from_json",
]
