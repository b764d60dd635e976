"""Noise levels that are denser where there is little noise."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers.level import Level

_RHO: Final = 7.0
"""The exponent that sets how much denser (`rho`; arXiv:2206.00364, table 1)."""


def karras_levels(
    alphas: Float[Tensor, "train_steps"], steps: int, is_rounded: bool
) -> tuple[Level, ...]:
    """Returns levels from the highest to the lowest trained noise (arXiv:2206.00364, equation 5).

    Args:
        alphas: `alpha bar` at each training step.
        steps: The number of levels.
        is_rounded: Whether timesteps are rounded to training steps; otherwise they lie between two,
            where the interpolated logarithm of sigma is that of the level.
    """
    sigmas = (1 / alphas.double() - 1).sqrt()
    low, high = float(sigmas[0]) ** (1 / _RHO), float(sigmas[-1]) ** (1 / _RHO)
    line = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    visited = (high + line * (low - high)) ** _RHO
    log_sigmas, wanted = sigmas.log(), visited.log()
    after = torch.searchsorted(log_sigmas, wanted).clamp(1, len(log_sigmas) - 1)
    low_log, high_log = log_sigmas[after - 1], log_sigmas[after]
    share = ((wanted - low_log) / (high_log - low_log)).clamp(0, 1)
    timesteps: list[float] = (after - 1 + share).tolist()
    return tuple(
        Level.of_sigma(sigma, round(t) if is_rounded else t)
        for sigma, t in zip(visited.tolist(), timesteps, strict=True)
    )
