"""Samplers of models that were distilled to predict an image in a few steps."""

import math
from dataclasses import dataclass

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler, Step


@dataclass(frozen=True)
class Distilled(Sampler):
    """A sampler that visits only training steps at which a model was distilled.

    As released, the spacings of undistilled models do not matter; of those, `sgm-uniform` alone is
    used, which web interfaces recommend for these models.

    Raises:
        GenerationError: The number of steps exceeds `distilled_steps`.
    """

    distilled_steps: int = 50
    """The number of training steps, evenly spaced, at which the model was distilled."""

    def _visited(self) -> tuple[Level, ...]:
        if self.spacing == "sgm-uniform":
            return super()._visited()
        most, total = self.distilled_steps, self.schedule.train_steps
        if not 1 <= self.steps <= most:
            raise GenerationError(
                f"{type(self).__name__} takes 1 to {most} steps, not {self.steps}.",
                hint="Try steps=4.",
            )
        stride = total // most
        distilled = [i * stride - 1 for i in range(most, 0, -1)]
        visited = [distilled[i * most // self.steps] for i in range(self.steps)]
        return tuple(self.schedule.level(timestep) for timestep in visited)


@dataclass(frozen=True)
class LCM(Distilled):
    """Multistep sampling of latent consistency models (arXiv:2310.04378, algorithm 3).

    Each step predicts the clean latents and adds the noise of the next level. The boundary
    condition `c_skip x + c_out x0` is that of section 4.1, with sigma_data = 0.5 and, as released,
    timesteps multiplied by 10.

    Example:
        >>> LCM().with_steps(4).timesteps
        (999, 759, 499, 259)
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def _advance(self, step: Step) -> Tensor:
        after = self.path[step.index + 1]
        t, sigma_data = 10 * self.path[step.index].timestep, 0.5
        c_skip = sigma_data**2 / (t**2 + sigma_data**2)
        c_out = t / math.hypot(t, sigma_data)
        denoised = c_skip * step.x + c_out * step.x0
        if after.noise == 0:
            return denoised
        return after.add_noise(denoised, step.fresh_noise)


@dataclass(frozen=True)
class TCD(Distilled):
    """Strategic stochastic sampling of trajectory consistency models (arXiv:2402.19159, alg. 4).

    Each step denoises beyond the next level and adds noise up to it.

    Raises:
        GenerationError: `gamma` is outside 0...1.
    """

    gamma: float = 0.3
    """The share of fresh noise, in 0...1."""

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

    def _advance(self, step: Step) -> Tensor:
        after = self.path[step.index + 1]
        s = self.schedule.level(math.floor((1 - self.gamma) * after.timestep))
        denoised = s.signal * step.x0 + s.noise * step.eps
        if self.gamma == 0 or step.index + 2 == len(self.path):
            return denoised
        share = after.signal / s.signal
        return share * denoised + math.sqrt(1 - share**2) * step.fresh_noise
