"""The normalisations of language models, as released."""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm


class RootMeanSquareNorm(nn.RMSNorm):
    """Divides features by their root mean square (arXiv:1910.07467) in float32, and multiplies by
    the weight in the dtype of the features.

    Args:
        width: Features of a token.
        eps: The number added to the mean square.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.width: Final = width
        self.least: Final = eps

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Returns the normalised features."""
        weight = self.weight
        if x.is_cpu and x.dtype == weight.dtype == torch.float32:
            # torch has one kernel for it on accelerators alone; these are its steps, but for a sum
            # and a division in place of a mean, which takes twice as long.
            square = (x * x).sum(-1, keepdim=True).div_(self.width).add_(self.least)
            return x * square.rsqrt_() * weight
        return weight * rms_norm(x.float(), self.normalized_shape, None, self.eps).to(x.dtype)


class HeadNorm(RootMeanSquareNorm):
    """Normalises the features of each head.

    Args:
        heads: The number of heads.
        width: Features of a head.
        eps: The number added to the mean square.
    """

    def __init__(self, heads: int, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.heads: Final = heads

    def forward(self, x: Float[Tensor, "rows tokens inner"]) -> Float[Tensor, "rows tokens inner"]:
        """Returns the normalised features."""
        return super().forward(x.unflatten(-1, (self.heads, -1))).flatten(-2)


class OffsetNorm(RootMeanSquareNorm):
    """Multiplies by one more than its weight, in float32, as Gemma does.

    Args:
        width: Features of a token.
        eps: The number added to the mean square.
    """

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Returns the normalised features."""
        normalised = rms_norm(x.float(), self.normalized_shape, None, self.eps)
        return (normalised * (1.0 + self.weight.float())).to(x.dtype)

    def reset_parameters(self) -> None:
        """Initialises the weight so that the factor is 1."""
        nn.init.zeros_(self.weight)


def build_norm(kind: Any, width: int, eps: float) -> nn.Module:
    """Builds a normalisation.

    Args:
        kind: `rms`, `rms-plus-one` or `layer`.
        width: Features of a token.
        eps: The number added to the mean square or to the variance.
    """
    if kind == "layer":
        return nn.LayerNorm(width, eps)
    return (OffsetNorm if kind == "rms-plus-one" else RootMeanSquareNorm)(width, eps)
