"""Levels of samplers that solve an equation in sigma."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.sampler import Sampler, Step
from refiners_core.sampler_name import Spacing


@dataclass(frozen=True)
class SigmaSampler(Sampler):
    """A sampler that moves latents along `dx / dsigma` (arXiv:2206.00364, section 3).

    As released, the network reads timesteps between training steps, `karras`, `exponential` and
    `beta` lie between the ends of another spacing, and the initial noise has the level of the first
    step; with `leading` it is full, although the first step is not the last training step. Latents
    that end with noise are not scaled: their signal is 1.
    """

    default_spacing: ClassVar[Spacing] = "linspace"
    reads_fractions: ClassVar[bool] = True
    needs_signal: ClassVar[bool] = True

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        *levels, end = super().levels
        return (*levels, Level(end.timestep, 1.0, end.sigma))

    def begin(
        self, noise: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the initial latents: noise at the level of the first step, as released."""
        return noise if self._plain_spacing == "leading" else self.path[0].noise * noise

    @property
    def _plain_spacing(self) -> Spacing:
        """The spacing of training steps, which sets the ends of spacings of sigma."""
        return (
            (self.schedule.ends or self.default_spacing)
            if self.schedule.is_spaced_in_sigma
            else self.spacing
        )

    def _visited(self) -> tuple[Level, ...]:
        schedule, ends = self.schedule, None
        if schedule.is_spaced_in_sigma and self._plain_spacing != "linspace":
            plain = schedule.visit(self.steps, False, spacing=self._plain_spacing)
            ends = plain[0].finite, plain[-1]
        return schedule.visit(self.steps, self._is_rounded, spacing=self.spacing, ends=ends)

    @property
    def _is_rounded(self) -> bool:
        return False

    def _end(self) -> Level:
        return self.schedule.level(0) if self.schedule.has_final_noise else CLEAN

    def _slope(self, step: Step, at: Level) -> Tensor:
        """Returns `dx / dsigma`: the predicted noise, or what limited clean latents imply."""
        if self.schedule.limit is None:
            return step.eps
        return (step.x / at.signal - step.x0) / at.sigma
