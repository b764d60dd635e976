"""The levels of noise that are visited more densely where there is little noise."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers.level import Level

_RHO: Final = 7.0
"""How much closer they lie there (arXiv:2206.00364, table 1)."""


def karras_levels(
    alphas: Float[Tensor, "train_steps"], steps: int, is_rounded: bool
) -> tuple[Level, ...]:
    """Returns levels over all of the trained noise (arXiv:2206.00364, equation 5).

    Args:
        alphas: `alpha bar` at each training step.
        steps: How many levels there are.
        is_rounded: Whether the network is told of training steps, or of places between them as
            well: of the place that has such a sigma, logarithms interpolated.
    """
    sigmas = (1 / alphas.double() - 1).sqrt()
    low, high = float(sigmas[0]) ** (1 / _RHO), float(sigmas[-1]) ** (1 / _RHO)
    line = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    visited = (high + line * (low - high)) ** _RHO
    logs, wanted = sigmas.log(), visited.log()
    after = torch.searchsorted(logs, wanted).clamp(1, len(logs) - 1)
    share = ((wanted - logs[after - 1]) / (logs[after] - logs[after - 1])).clamp(0, 1)
    places: list[float] = (after - 1 + share).tolist()
    return tuple(
        Level.of_sigma(sigma, round(t) if is_rounded else t)
        for sigma, t in zip(visited.tolist(), places, strict=True)
    )
