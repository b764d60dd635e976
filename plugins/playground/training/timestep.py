"""Which training steps a network is shown."""

import torch
from torch import Tensor


def choose_timesteps(count: int) -> Tensor:
    """Draws training steps by lot, three quarters of them from where shapes are decided."""
    spread = torch.sigmoid(0.2 + torch.randn(count))
    is_even = torch.rand(count) < 0.25
    return (torch.where(is_even, torch.rand(count), spread) * 1000).long().clamp(0, 999)
