"""Denoising diffusion implicit models."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers.sampler import Sampler


@dataclass(frozen=True)
class DDIM(Sampler):
    """The deterministic sampler of arXiv:2010.02502, equation 12 with sigma = 0.

    Each step aims at the next visited step. Where released code subtracts a rounded stride
    instead, the two agree if the stride divides the trained steps, or the spacing is leading.

    Example:
        >>> DDIM().with_steps(5).timesteps
        (801, 601, 401, 201, 1)
    """

    def step(
        self,
        latents: Float[Tensor, "rows channels height width"],
        prediction: Float[Tensor, "rows channels height width"],
        index: int,
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns `sqrt(a_next) x0 + sqrt(1 - a_next) eps`, computed in float32."""
        x0, eps = self.schedule.split(latents.float(), prediction.float(), self.timesteps[index])
        a, s = self.schedule.levels(self.after(index))
        return (a * x0 + s * eps).to(latents.dtype)
