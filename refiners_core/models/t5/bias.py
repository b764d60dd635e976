"""The bias of T5's attention, for the distance of two tokens and for padding."""

import math
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from refiners_core.models.t5.config import T5Config
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

T5_MASK: Final = "t5.mask"
"""The context key of the mask, (rows, tokens): True for tokens of the text, False for padding."""


class RelativeBias(Layer):
    """Returns the bias of attention for each pair of positions (arXiv:1910.10683, section 2.1).

    Near distances have a bucket each, farther ones share buckets by their logarithm; the two
    directions have different buckets. Padding, as `t5.mask` in the context marks it, gets minus
    infinity; without a mask no token is padding.

    Args:
        config: The sizes of the encoder.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.buckets: Final = config.buckets
        self.farthest: Final = config.farthest
        self.embedding = nn.Embedding(config.buckets, config.heads)

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "#rows heads tokens tokens"]:
        """Takes features (rows, tokens, width), of which it reads only the sizes."""
        features: Tensor = inputs[0]
        position = torch.arange(features.shape[1], device=features.device)
        distance = position[None, :] - position[:, None]  # from the query to the key
        bias = self.embedding(self.bucket(distance)).permute(2, 0, 1)[None].float()
        mask: Tensor | None = context.get(T5_MASK)
        if mask is not None:
            bias = bias.masked_fill(~mask.bool()[:, None, None, :], float("-inf"))
        return bias.to(features.dtype)

    def bucket(self, distance: Int[Tensor, "queries keys"]) -> Int[Tensor, "queries keys"]:
        """Returns the bucket of each distance, as released."""
        half, exact = self.buckets // 2, self.buckets // 4
        far = distance.abs()
        share = torch.log(far.clamp(min=1).float() / exact) / math.log(self.farthest / exact)
        shared = exact + (share * (half - exact)).long()
        nearest = torch.where(far < exact, far, shared.clamp(max=half - 1))
        return nearest + (distance > 0).long() * half
