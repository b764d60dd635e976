"""Feed-forward networks, which process every token separately, and their activations."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from refiners_core.tree.chain import Chain


class FeedForward(Chain):
    """Two linear layers with an activation in between (arXiv:1706.03762, section 3.3).

    Args:
        width: Features of a token.
        inner: Features between the two layers.
        activation: The activation between the two layers.
    """

    def __init__(self, width: int, inner: int, activation: nn.Module) -> None:
        super().__init__(
            expand=nn.Linear(width, inner), act=activation, contract=nn.Linear(inner, width)
        )


class GatedFeedForward(Chain):
    """A feed-forward network in which half of the features gate the other half (GEGLU,
    arXiv:2002.05202).

    Args:
        width: Features of a token.
        inner: Features between the two layers, after gating.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(
            expand=nn.Linear(width, 2 * inner), gate=GatedGelu(), contract=nn.Linear(inner, width)
        )


class GatedGelu(nn.Module):
    """Multiplies the first half of the features by the GELU of the second."""

    def forward(self, x: Float[Tensor, "rows tokens twice"]) -> Float[Tensor, "rows tokens inner"]:
        """Returns half as many features per token."""
        value, gate = x.chunk(2, dim=-1)
        return value * gelu(gate)


class QuickGelu(nn.Module):
    """The approximation of GELU that OpenAI's CLIP was trained with: `x sigmoid(1.702 x)`.

    From arXiv:1606.08415, section 2.
    """

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Applies the activation elementwise."""
        return x * torch.sigmoid(1.702 * x)
