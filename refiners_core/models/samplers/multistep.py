"""Levels of multistep solvers in the logarithm of the signal to noise ratio."""

from dataclasses import dataclass
from typing import ClassVar

from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.sampler import Sampler
from refiners_core.sampler_name import Spacing


@dataclass(frozen=True)
class MultistepSampler(Sampler):
    """A solver whose step reads the predictions of earlier steps (arXiv:2211.01095, section 4).

    As released, spacings that reach the first training step are computed for one more level, and
    the last level is dropped; timesteps are training steps.
    """

    default_spacing: ClassVar[Spacing] = "linspace"
    needs_signal: ClassVar[bool] = True

    def _visited(self) -> tuple[Level, ...]:
        spacing = self.spacing
        spare = int(spacing in ("leading", "linspace"))
        rounding = "down" if spacing in ("exponential", "beta") else "nearest"
        levels = self.schedule.visit(self.steps + spare, spacing=spacing, rounding=rounding)
        return levels[: self.steps]

    def _end(self) -> Level:
        return self.schedule.level(0) if self.schedule.has_final_noise else CLEAN
