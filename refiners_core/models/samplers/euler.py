"""Euler's method from noise to an image, with and without fresh noise."""

import math
from dataclasses import dataclass

from torch import Tensor

from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.sigma import SigmaSampler


@dataclass(frozen=True)
class Euler(SigmaSampler):
    """Euler's method in sigma (arXiv:2206.00364, algorithm 1 without churn).

    With `x / signal = x0 + sigma eps`, a step of `dx/dsigma = eps` changes sigma alone; for
    variance preserving latents it equals DDIM's equation 12. The noise levels differ: with
    `linspace` the network reads timesteps between training steps, and the last step always ends
    without noise.

    Example:
        >>> from refiners_core.models.samplers import ScheduleConfig
        >>> Euler(ScheduleConfig(spacing="linspace")).with_steps(3).timesteps
        (999, 499.5, 0)
    """

    def _advance(self, step: Step) -> Tensor:
        after = self.path[step.index + 1]
        return after.signal * step.x0 + after.noise * step.eps


@dataclass(frozen=True)
class EulerAncestral(Euler):
    """Euler's method to less noise than the next level has, and fresh noise for the rest.

    The share is that of ancestral sampling in DDPM (arXiv:2006.11239, equation 7), written in
    sigma: `up = sigma' sqrt(1 - (sigma' / sigma)^2)` for a step from sigma to sigma'.
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def _advance(self, step: Step) -> Tensor:
        before, after = self.path[step.index], self.path[step.index + 1]
        share = after.sigma / before.sigma  # down = share * sigma'
        up = math.sqrt(1 - share**2)
        return after.signal * step.x0 + after.noise * (share * step.eps + up * step.fresh_noise)
