"""Regularisation: predictions on the way back are moved towards uncorrelated noise."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from refiners_core.option import number

SEED: Final = 0
"""The seed of the shifts at which correlations are measured, the same in every step."""
SMALLEST: Final = 8
"""The height below which predictions are not halved any further."""


@dataclass(frozen=True)
class Regularisation:
    """Reduces the correlation of a prediction with itself (arXiv:2403.14602, section 4.3, after
    arXiv:2302.03027, section 3.2).

    Raises:
        AdapterError: A number is not valid.
    """

    strength: float = 0.0
    """The length of a gradient step; 0 leaves predictions as they are."""
    steps: int = 4
    """The number of steps."""
    rolls: int = 5
    """The number of random shifts in a step."""

    def __post_init__(self) -> None:
        number("regularisation", self.strength, 20.0, low=0)

    def __call__(
        self, noise: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns a prediction after all gradient steps.

        Args:
            noise: The predicted noise.
        """
        if self.strength == 0:
            return noise
        source = torch.Generator("cpu").manual_seed(SEED)
        for _ in range(self.steps * self.rolls):
            gradient = correlation_gradient(noise, source)
            noise = noise - self.strength / self.rolls * gradient
        return noise


def correlation_gradient(
    noise: Float[Tensor, "rows channels height width"], source: torch.Generator
) -> Float[Tensor, "rows channels height width"]:
    """Returns the gradient of the squared correlations of noise with itself, shifted.

    The loss is the sum, over channels, both directions, and sizes down to 8 rows, of the squared
    mean of the noise times the noise shifted by a random number of positions.

    Args:
        noise: The noise.
        source: Draws the shifts.
    """
    total = torch.zeros_like(noise)
    for channel in range(noise.shape[1]):
        sizes = [noise[:, channel : channel + 1]]
        while sizes[-1].shape[-2] > SMALLEST:
            sizes.append(avg_pool2d(sizes[-1], 2))
        gradient: Tensor | None = None
        shifts = [
            int(torch.randint(0, max(1, x.shape[-2] // 2), (1,), generator=source, device="cpu"))
            for x in sizes
        ]
        for x, shift in zip(reversed(sizes), reversed(shifts), strict=True):
            count = x.shape[-2] * x.shape[-1]
            slope = torch.zeros_like(x)
            for dim in (-2, -1):
                mean = (x * x.roll(shift, dim)).mean((-2, -1), keepdim=True)
                slope = slope + 2 * mean * (x.roll(shift, dim) + x.roll(-shift, dim)) / count
            gradient = slope if gradient is None else slope + _unpooled(gradient, x)
        assert gradient is not None
        total[:, channel : channel + 1] = gradient
    return total


def _unpooled(gradient: Tensor, like: Tensor) -> Tensor:
    """Returns the gradient of a map from that of its averages of 2 x 2 positions."""
    wide = interpolate(gradient, scale_factor=2.0, mode="nearest") / 4
    height, width = like.shape[-2] - wide.shape[-2], like.shape[-1] - wide.shape[-1]
    return pad(wide, (0, width, 0, height))
