"""The midpoint method, with and without fresh noise."""

import math
from dataclasses import dataclass

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.two_pass import Pass, TwoPass


@dataclass(frozen=True)
class KDPM2(TwoPass):
    """The midpoint method in sigma, after DPM-Solver-2 (arXiv:2206.00927, algorithm 1).

    The slope of a step is that in its middle, in the logarithm of sigma. As released, Karras'
    levels have rounded timesteps, and their middles do not.
    """

    @property
    def _is_rounded(self) -> bool:
        return self.spacing == "karras"

    def _second(self, start: Level, end: Level) -> Level:
        return self._between(start, self._target(start, end).sigma)

    def _target(self, start: Level, end: Level) -> Level:
        """Returns the level to which the slopes lead."""
        return end

    def _half(self, step: Step, current: Pass) -> Tensor:
        middle = self.path[step.index + 1]
        return current.start.moved(step.x, middle, self._slope(step, current.at))

    def _whole(self, step: Step, current: Pass) -> Tensor:
        target = self._target(current.start, current.end)
        return current.start.moved(step.past[0], target, self._slope(step, current.at))

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        return (step.x,) if self.passes[step.index].is_first else ()


@dataclass(frozen=True)
class KDPM2Ancestral(KDPM2):
    """The midpoint method to less noise than the next level has, and fresh noise for the rest.

    The shares are those of `EulerAncestral`.
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def draws(self, index: int) -> bool:
        return not self.passes[index].is_first

    def _target(self, start: Level, end: Level) -> Level:
        return Level.of_sigma(end.sigma**2 / start.sigma, end.timestep)

    def _whole(self, step: Step, current: Pass) -> Tensor:
        start, end = current.start, current.end
        down = self._target(start, end)
        up = end.noise * math.sqrt(1 - (end.sigma / start.sigma) ** 2)
        x = super()._whole(step, current)
        return (end.signal / down.signal) * x + up * step.fresh_noise
