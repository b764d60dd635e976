"""The weight of each example in the loss."""

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers import ScheduleConfig


def min_snr(alphas: Float[Tensor, "rows"], gamma: float, prediction: str) -> Float[Tensor, "rows"]:
    """Returns the min-SNR weights (arXiv:2303.09556, section 3.4, and its appendix for v).

    The signal-to-noise ratio is `a / (1 - a)`. At ratio 0, zero terminal SNR, the weight is its
    limit: 1 for noise, 0 for velocity and image.

    Args:
        alphas: The share of the image in the variance, `alpha bar`, in 0...1.
        gamma: The limit of the ratio.
        prediction: What the network predicts: `eps`, `v` or `x0`.
    """
    snr = alphas / (1 - alphas)
    limited = snr.clamp(max=gamma)
    if prediction == "x0":
        return limited
    if prediction == "v":
        return limited / (snr + 1)
    return torch.where(snr > 0, limited / snr.clamp(min=torch.finfo(snr.dtype).tiny), 1.0)


def masked_mean(
    error: Float[Tensor, "rows channels height width"],
    mask: Float[Tensor, "rows 1 height width"] | None,
) -> Float[Tensor, "rows"]:
    """Returns the mean error of each row, weighted by a mask; 0 for a row whose mask is empty.

    A small mask therefore weighs as much as a large one.
    """
    if mask is None:
        return error.mean(dim=(1, 2, 3))
    weight = mask.sum(dim=(1, 2, 3)) * error.shape[1]
    return (error * mask).sum(dim=(1, 2, 3)) / weight.clamp(min=1e-6)


def alphas_at(schedule: ScheduleConfig, timesteps: Tensor) -> Float[Tensor, "rows"]:
    """Returns `alpha bar` at timesteps, float32, on their device."""
    return schedule.alphas.to(timesteps.device)[timesteps].float()
