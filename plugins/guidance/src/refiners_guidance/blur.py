"""Gaussian blur of feature maps."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, pad


def blurred(
    x: Float[Tensor, "rows channels height width"], sigma: float, size: int | None = None
) -> Float[Tensor, "rows channels height width"]:
    """Returns maps that are convolved with a Gaussian; borders are reflected.

    Args:
        x: The maps.
        sigma: The width of the Gaussian in positions; infinite for the mean of each map.
        size: The side of the kernel, odd; by default three sigma on both sides. It is cut to what
            reflection allows, so that a large sigma is an average over the neighbourhood.
    """
    if math.isinf(sigma):
        return x.mean((-2, -1), keepdim=True).expand_as(x)
    reach = math.ceil(6 * sigma)
    size = reach + 1 - reach % 2 if size is None else size
    rows, columns = (_kernel(x, side, sigma, size) for side in x.shape[-2:])
    channels, half_h, half_w = x.shape[1], len(rows) // 2, len(columns) // 2
    padded = pad(x, (half_w, half_w, half_h, half_h), mode="reflect")
    kernel = (rows[:, None] * columns).expand(channels, 1, -1, -1)
    return conv2d(padded, kernel, groups=channels)


def _kernel(x: Tensor, side: int, sigma: float, size: int) -> Tensor:
    size = min(size, side - (side % 2 - 1))
    half = (size - 1) / 2
    positions = torch.linspace(-half, half, size, device=x.device)
    weights = torch.exp(-0.5 * (positions / sigma).square())
    return (weights / weights.sum()).to(x.dtype)
