"""Denoising diffusion implicit models (DDIM)."""

import math
from dataclasses import dataclass

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.stride import StrideSampler


@dataclass(frozen=True)
class DDIM(StrideSampler):
    """The sampler of arXiv:2010.02502, equations 12 and 16.

    Raises:
        GenerationError: `eta` is outside 0...1.

    Example:
        >>> DDIM().with_steps(5).timesteps
        (801, 601, 401, 201, 1)
    """

    eta: float = 0.0
    """The share of fresh noise, in 0...1: 0 is DDIM, 1 is DDPM."""

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise GenerationError(f"eta is in 0...1, not {self.eta}.", hint="Try DDIM(eta=0.0).")

    @property
    def is_stochastic(self) -> bool:
        return self.eta > 0

    def _advance(self, step: Step) -> Tensor:
        x0, eps = step.x0, step.eps
        t, s = self.path[step.index], self._after(self.skipped + step.index)
        if self.eta == 0:
            return s.signal * x0 + s.noise * eps
        sigma = self.eta * (s.noise / t.noise) * math.sqrt(1 - (t.signal / s.signal) ** 2)
        return s.signal * x0 + math.sqrt(s.noise**2 - sigma**2) * eps + sigma * step.fresh_noise
