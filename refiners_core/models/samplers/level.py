"""A noise level: the shares of image and noise in latents."""

import math
from dataclasses import dataclass
from typing import Final

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """A noise level, at which clean latents x0 have become `signal * x0 + noise * eps`.

    Variance is preserved: `signal**2 + noise**2 = 1`.

    Example:
        >>> Level.of_sigma(1.0, timestep=300).log_snr
        0.0
    """

    timestep: float
    """The timestep that the network reads: a training step, or a point between two."""
    signal: float
    """`sqrt(alpha bar)`, in 0...1."""
    noise: float
    """`sqrt(1 - alpha bar)`, in 0...1."""

    @classmethod
    def of_sigma(cls, sigma: float, timestep: float) -> "Level":
        """Returns the level with `noise / signal = sigma`."""
        signal = 1 / math.hypot(1, sigma)
        return cls(timestep, signal, 1.0 if math.isinf(sigma) else sigma * signal)

    @property
    def sigma(self) -> float:
        """Noise over signal (`sigma` of arXiv:2206.00364); infinite for pure noise."""
        return self.noise / self.signal if self.signal > 0 else math.inf

    @property
    def finite(self) -> "Level":
        """This level; pure noise is replaced by a level with a small signal, to divide by.

        As released, `alpha bar` is then 2**-24, the least positive float16.
        """
        return self if self.signal > 0 else Level.of_sigma(2.0**12, self.timestep)

    @property
    def log_snr(self) -> float:
        """`log(signal / noise)` (`lambda` of arXiv:2206.00927); infinite without noise."""
        return math.log(self.signal / self.noise) if self.noise > 0 else math.inf

    def add_noise(
        self, clean: Float[Tensor, "*shape"], noise: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Returns clean latents with the noise of this level added."""
        return self.signal * clean + self.noise * noise

    def moved(
        self, x: Float[Tensor, "*shape"], to: "Level", slope: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Returns latents of this level at another one, along a line in sigma.

        With `y = x / signal`, that is `y + (sigma' - sigma) slope`; along the noise `eps` of the
        latents it is DDIM's step (arXiv:2010.02502, equation 12). This level has a signal.

        Args:
            x: Latents at this level.
            to: The level to go to.
            slope: `dy / dsigma`.
        """
        return (to.signal / self.signal) * x + (to.noise - to.signal * self.sigma) * slope


CLEAN: Final = Level(0, 1.0, 0.0)
"""The level without noise."""
