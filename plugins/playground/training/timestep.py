"""The distribution of training timesteps."""

import torch
from torch import Tensor


def choose_timesteps(count: int) -> Tensor:
    """Returns random timesteps, three quarters of them from the range that decides shapes."""
    spread = torch.sigmoid(0.2 + torch.randn(count))
    is_even = torch.rand(count) < 0.25
    return (torch.where(is_even, torch.rand(count), spread) * 1000).long().clamp(0, 999)
