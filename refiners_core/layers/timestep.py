"""Noise levels as features."""

import math
from typing import Final

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from refiners_core.errors import ModelError
from refiners_core.tree.chain import Chain


class TimestepEncoder(Chain):
    """A timestep, as waves and then as learnt features.

    Takes the timestep and a tensor whose dtype and device the features get.

    Args:
        waves: How many waves the timestep is read off.
        width: How many features come out.
    """

    def __init__(self, waves: int, width: int) -> None:
        super().__init__(
            waves=SinusoidalEmbedding(waves),
            linear_1=nn.Linear(waves, width),
            act=nn.SiLU(),
            linear_2=nn.Linear(width, width),
        )


class SinusoidalEmbedding(nn.Module):
    """Reads numbers off cosines and sines of frequencies from 1 down to almost 1/10000.

    The positional encoding of arXiv:1706.03762, section 3.5, cosines first as in released
    diffusion models.

    Args:
        width: How many values come out for each number; even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ModelError(
                f"a timestep is read off as many cosines as sines, not off {width} waves.",
                hint="Choose an even number of channels for the first level.",
            )
        self.width: Final = width

    def forward(
        self, timestep: Num[Tensor, "*rows"], like: Float[Tensor, "..."]
    ) -> Float[Tensor, "rows_or_1 {self.width}"]:
        """Returns the waves of each number in the dtype and on the device of another tensor."""
        half = self.width // 2
        # No buffer: a tree built on the meta device would keep an empty one after loading.
        steps = torch.arange(half, dtype=torch.float32, device=like.device)
        frequencies = torch.exp(steps * (-math.log(10000.0) / half))
        phase = timestep.to(like.device, torch.float32).reshape(-1, 1) * frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1).to(like.dtype)
