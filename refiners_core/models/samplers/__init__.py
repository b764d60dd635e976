"""Samplers as values: a noise schedule and an update rule each."""

from typing import Final

from refiners_core.models.samplers.ddim import DDIM as DDIM
from refiners_core.models.samplers.sampler import Sampler as Sampler
from refiners_core.models.samplers.schedule import ScheduleConfig as ScheduleConfig

SAMPLERS: Final[dict[str, type[Sampler]]] = {"ddim": DDIM}
"""The samplers that `generate(sampler=...)` knows by name."""

__all__ = ["DDIM", "SAMPLERS", "Sampler", "ScheduleConfig"]
