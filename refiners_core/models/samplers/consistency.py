"""Samplers of models that were distilled to jump along the way to a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler


@dataclass(frozen=True)
class Distilled(Sampler):
    """A sampler that visits only training steps at which a model was distilled.

    Raises:
        GenerationError: There are more steps than the model was distilled at.
    """

    distilled_steps: int = 50
    """At how many training steps, evenly spaced from the last one, the model was distilled."""

    def _visited(self) -> tuple[Level, ...]:
        many, total = self.distilled_steps, self.schedule.train_steps
        if not 1 <= self.steps <= many:
            raise GenerationError(
                f"{type(self).__name__} takes 1 to {many} steps, not {self.steps}.",
                hint="Try steps=4.",
            )
        stride = total // many
        known = [i * stride - 1 for i in range(many, 0, -1)]
        return tuple(self.schedule.level(known[i * many // self.steps]) for i in range(self.steps))


@dataclass(frozen=True)
class LCM(Distilled):
    """Multistep sampling of latent consistency models (arXiv:2310.04378, algorithm 3).

    Each step jumps to a clean picture and takes it back to the noise of the next step. The
    boundary condition `c_skip x + c_out x0` is that of the paper's section 4.1, with sigma_data of
    0.5 and, as released, timesteps ten times as long.

    Example:
        >>> LCM().with_steps(4).timesteps
        (999, 759, 499, 259)
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
        there = self.path[index + 1]
        t, sigma_data = 10 * self.path[index].timestep, 0.5
        c_skip = sigma_data**2 / (t**2 + sigma_data**2)
        c_out = t / math.hypot(t, sigma_data)
        denoised = c_skip * x + c_out * x0
        if there.noise == 0:
            return denoised
        assert noise is not None
        return there.add_noise(denoised, noise)


@dataclass(frozen=True)
class TCD(Distilled):
    """Strategic stochastic sampling of trajectory consistency models (arXiv:2402.19159, alg. 4).

    Each step jumps to less noise than is due and takes that back to the noise of the next step.

    Raises:
        GenerationError: `gamma` is out of range.
    """

    gamma: float = 0.3
    """How much of the noise is drawn anew, in 0...1."""

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise GenerationError(
                f"gamma is in 0...1, not {self.gamma}.", hint="Try TCD(gamma=0.3)."
            )

    @property
    def is_stochastic(self) -> bool:
        return self.gamma > 0

    def _end(self) -> Level:
        return self.schedule.level(0)

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
        s = self.schedule.level(math.floor((1 - self.gamma) * there.timestep))
        jumped = s.signal * x0 + s.noise * eps
        if self.gamma == 0 or index + 2 == len(self.path):
            return jumped
        assert noise is not None
        share = there.signal / s.signal
        return share * jumped + math.sqrt(1 - share**2) * noise
