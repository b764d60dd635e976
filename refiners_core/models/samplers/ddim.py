"""Denoising diffusion implicit models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler


@dataclass(frozen=True)
class DDIM(Sampler):
    """The sampler of arXiv:2010.02502, equations 12 and 16.

    Each step aims at the next visited step. Where released code subtracts a rounded stride
    instead, the two agree if the stride divides the trained steps, or the spacing is leading.

    Raises:
        GenerationError: `eta` is out of range.

    Example:
        >>> DDIM().with_steps(5).timesteps
        (801, 601, 401, 201, 1)
    """

    eta: float = 0.0
    """How much of the noise is drawn anew, in 0...1: from DDIM, none, to DDPM."""

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise GenerationError(f"eta is in 0...1, not {self.eta}.", hint="Try DDIM(eta=0.0).")

    @property
    def is_stochastic(self) -> bool:
        return self.eta > 0

    def _end(self) -> Level:
        return self.schedule.end

    def _advance(
        self,
        index: int,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        past: Sequence[Tensor],
        noise: Tensor | None,
    ) -> Tensor:
        t, s = self.path[index], self.path[index + 1]
        if self.eta == 0:
            return s.signal * x0 + s.noise * eps
        assert noise is not None
        sigma = self.eta * (s.noise / t.noise) * math.sqrt(1 - (t.signal / s.signal) ** 2)
        return s.signal * x0 + math.sqrt(s.noise**2 - sigma**2) * eps + sigma * noise
