"""Denoising diffusion probabilistic models (DDPM)."""

import math
from dataclasses import dataclass

from torch import Tensor

from refiners_core.models.samplers.sampler import Sampler, Step


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling over visited training steps (arXiv:2006.11239, algorithm 2).

    Example:
        >>> DDPM().with_steps(5).timesteps
        (801, 601, 401, 201, 1)
    """

    has_large_variance: bool = False
    """Whether the noise of a step has the variance `beta` instead of `beta tilde` (section 3.2)."""

    @property
    def is_stochastic(self) -> bool:
        return True

    def draws(self, index: int) -> bool:
        return self.path[index].timestep > 0

    def _advance(self, step: Step) -> Tensor:
        t, s = self.path[step.index], self.path[step.index + 1]
        kept = (t.signal / s.signal) ** 2  # alpha: what the step keeps of the variance
        beta = 1 - kept
        mean = (s.signal * beta * step.x0 + math.sqrt(kept) * s.noise**2 * step.x) / t.noise**2
        variance = beta if self.has_large_variance else beta * (s.noise / t.noise) ** 2
        if variance <= 0 or not self.draws(step.index):
            return mean
        return mean + math.sqrt(variance) * step.fresh_noise
