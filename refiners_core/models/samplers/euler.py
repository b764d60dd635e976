"""Euler's method along the way from noise to a picture, with and without fresh noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler


@dataclass(frozen=True)
class Euler(Sampler):
    """Euler's method in sigma (arXiv:2206.00364, algorithm 1 without churn).

    With `x / signal = x0 + sigma eps`, a step of `dx/dsigma = eps` to another sigma changes sigma
    alone; for latents that preserve variance this is DDIM's equation 12. What differs are the
    levels: with `linspace` the network is told of places between training steps, and the last step
    always ends without noise.

    Example:
        >>> from refiners_core.models.samplers import ScheduleConfig
        >>> Euler(ScheduleConfig(spacing="linspace")).with_steps(3).timesteps
        (999, 499.5, 0)
    """

    def begin(
        self, noise: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns noise as there is of it at the first step, as released.

        With `leading` the first step is not the last that was trained, and its noise is full.
        """
        return noise if self.schedule.spacing == "leading" else self.path[0].noise * noise

    def _visited(self) -> tuple[Level, ...]:
        return tuple(level.finite for level in self.schedule.visit(self.steps, is_rounded=False))

    def _advance(
        self,
        index: int,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        past: Sequence[Tensor],
        noise: Tensor | None,
    ) -> Tensor:
        there = self.path[index + 1]
        return there.signal * x0 + there.noise * eps


@dataclass(frozen=True)
class EulerAncestral(Euler):
    """Euler's method to less noise than is due, and fresh noise for the rest.

    The share is that of ancestral sampling in DDPM (arXiv:2006.11239, equation 7), written in
    sigma: `up = sigma' sqrt(1 - (sigma' / sigma)^2)` for a step from sigma to sigma'.
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def _advance(
        self,
        index: int,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        past: Sequence[Tensor],
        noise: Tensor | None,
    ) -> Tensor:
        assert noise is not None
        here, there = self.path[index], self.path[index + 1]
        share = there.sigma / here.sigma  # down = share * sigma'
        up = math.sqrt(1 - share**2)
        return there.signal * x0 + there.noise * (share * eps + up * noise)
