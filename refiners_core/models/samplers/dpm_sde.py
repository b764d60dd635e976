"""DPM-Solver++ for the stochastic equation, single step."""

import math
from dataclasses import dataclass

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.two_pass import Pass, TwoPass


@dataclass(frozen=True)
class DPMSDE(TwoPass):
    """DPM-Solver++ for the stochastic equation with a second pass in the middle of each step.

    Solves the equation of arXiv:2211.01095, section 5, as released in k-diffusion (`dpmpp_sde`).
    The noise of a step is the increment of a Brownian path over it: the one up to the middle is a
    part of it.
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def draws(self, index: int) -> bool:
        return self.passes[index].end.noise > 0

    def _second(self, start: Level, end: Level) -> Level:
        return self._between(start, end.sigma)

    def _half(self, step: Step, current: Pass) -> Tensor:
        return _solved(step.x, step.x0, current.start, self.path[step.index + 1], step.fresh_noise)

    def _whole(self, step: Step, current: Pass) -> Tensor:
        x, first = step.past
        share = (current.start.sigma - current.at.sigma) / (current.start.sigma - current.end.sigma)
        noise = math.sqrt(share) * first + math.sqrt(1 - share) * step.fresh_noise
        return _solved(x, step.x0, current.start, current.end, noise)

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        current = self.passes[step.index]
        is_half = current.is_first and current.end.noise > 0
        return (step.x, step.fresh_noise) if is_half else ()


def _solved(x: Tensor, x0: Tensor, start: Level, end: Level, noise: Tensor) -> Tensor:
    """Returns latents at another level: less noise than it has, and fresh noise for the rest."""
    ratio = end.sigma / start.sigma
    up = end.noise * math.sqrt(1 - ratio**2)
    mean = (end.signal / start.signal) * ratio**2 * x + end.signal * (1 - ratio**2) * x0
    return mean + up * noise
