"""Timestep embeddings."""

import math
from typing import Final

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from refiners_core.errors import ModelError
from refiners_core.tree.chain import Chain


class TimestepEncoder(Chain):
    """The sinusoidal embedding of a timestep followed by two learned layers.

    Its inputs are the timestep and a tensor whose dtype and device the output takes.

    Args:
        waves: Width of the sinusoidal embedding; even.
        width: Features of the output.

    Raises:
        ModelError: `waves` is odd.
    """

    def __init__(self, waves: int, width: int) -> None:
        super().__init__(
            waves=SinusoidalEmbedding(waves),
            linear_1=nn.Linear(waves, width),
            act=nn.SiLU(),
            linear_2=nn.Linear(width, width),
        )


class SinusoidalEmbedding(nn.Module):
    """Embeds numbers as cosines and sines with frequencies from 1 down to almost 1/10000.

    The positional encoding of arXiv:1706.03762, section 3.5, with cosines first as in released
    diffusion models.

    Args:
        width: Values per number; even.

    Raises:
        ModelError: `width` is odd.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ModelError(
                f"a sinusoidal embedding has an even width (cosines and sines), not {width}.",
                hint="Choose an even number of channels for the first level.",
            )
        self.width: Final = width

    def forward(
        self, timestep: Num[Tensor, "*rows"], like: Float[Tensor, "..."]
    ) -> Float[Tensor, "rows_or_1 {self.width}"]:
        """Returns the embedding of each number in the dtype and on the device of `like`."""
        half = self.width // 2
        # Not a buffer: a tree built on the meta device would keep an empty one after loading.
        steps = torch.arange(half, dtype=torch.float32, device=like.device)
        frequencies = torch.exp(steps * (-math.log(10000.0) / half))
        phase = timestep.to(like.device, torch.float32).reshape(-1, 1) * frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1).to(like.dtype)


class EachEmbedding(nn.Module):
    """Embeds each number of a row as sines and cosines, and concatenates the embeddings.

    Args:
        width: The features of each embedding, an even number.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves: Final = SinusoidalEmbedding(width)

    def forward(
        self, numbers: Num[Tensor, "rows numbers"], like: Float[Tensor, "..."]
    ) -> Float[Tensor, "rows waves"]:
        """Returns the embeddings in the dtype and on the device of `like`."""
        return self.waves(numbers.flatten(), like).reshape(len(numbers), -1)
