"""Attention in named parts: project to queries, keys and values, attend, project back."""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from refiners_core.errors import ModelError
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Distribute, Identity, Parallel, UseContext


class Attend(nn.Module):
    """Computes `softmax(q k^T / sqrt(d)) v`, without projections.

    Scaled dot-product attention with several heads (arXiv:1706.03762, section 3.2). Adapters of
    attention edit this layer, whatever the projections around it. An adapter that edits its inputs
    may add a mask as the fourth input; an adapter that reads them passes further inputs on.

    Args:
        heads: Number of attention heads; divides the width.
        is_causal: Whether a token attends only to itself and to earlier tokens.
        scale: The factor of `q k^T`; `1 / sqrt(d)` by default.
    """

    def __init__(self, heads: int, is_causal: bool = False, *, scale: float | None = None) -> None:
        super().__init__()
        self.heads: Final = heads
        self.is_causal: Final = is_causal
        self.scale: Final = scale

    def forward(
        self,
        q: Float[Tensor, "rows queries inner"],
        k: Float[Tensor, "rows tokens inner"],
        v: Float[Tensor, "rows tokens inner"],
        mask: Float[Tensor, "#rows #queries tokens"]
        | Float[Tensor, "#rows #heads #queries tokens"]
        | Bool[Tensor, "#rows #queries tokens"]
        | None = None,
    ) -> Float[Tensor, "rows queries inner"]:
        """Computes attention of queries over the tokens of keys and values.

        Args:
            q: The queries.
            k: The keys.
            v: The values, one for each key.
            mask: Values added to `q k^T / sqrt(d)`, the same for all heads or for each; or, as
                bool, True for the keys that a query attends to. Causal attention stays causal
                under a mask.
        """
        rows, queries, inner = q.shape
        shape = (rows, -1, self.heads, inner // self.heads)
        x = scaled_dot_product_attention(
            q.view(shape).transpose(1, 2),
            k.view(shape).transpose(1, 2),
            v.view(shape).transpose(1, 2),
            attn_mask=None if mask is None else self._for_all_heads(mask, queries),
            is_causal=self.is_causal and mask is None,
            scale=self.scale,
        )
        return x.transpose(1, 2).reshape(rows, queries, inner)

    def _for_all_heads(self, mask: Tensor, queries: int) -> Tensor:
        if self.is_causal:
            later = torch.ones(queries, mask.shape[-1], dtype=torch.bool, device=mask.device)
            mask = mask.masked_fill(later.triu(1), float("-inf") if mask.is_floating_point() else 0)
        return mask if mask.ndim == 4 else mask[:, None]


class SelfAttention(Chain):
    """Attention of tokens to one another.

    Args:
        width: Features of a token.
        heads: Number of attention heads; divides the width.
        has_bias: Whether queries, keys and values have a bias; the output always has one.
        is_causal: Whether a token attends only to itself and to earlier tokens.

    Raises:
        ModelError: The number of heads does not divide the width.
    """

    def __init__(
        self, width: int, heads: int, *, has_bias: bool = False, is_causal: bool = False
    ) -> None:
        _check_heads(width, heads)
        super().__init__(
            project=Parallel(
                to_q=nn.Linear(width, width, bias=has_bias),
                to_k=nn.Linear(width, width, bias=has_bias),
                to_v=nn.Linear(width, width, bias=has_bias),
            ),
            attend=Attend(heads, is_causal),
            to_out=nn.Linear(width, width),
        )
        self.width: Final = width


class CrossAttention(Chain):
    """Attention of tokens to tokens of the context, such as those of a text.

    Args:
        width: Features of a token.
        heads: Number of attention heads; divides the width.
        source_width: Features of a token in the context.
        source: The context key of those tokens, `(rows, tokens, source_width)`.

    Raises:
        ModelError: The number of heads does not divide the width.
    """

    def __init__(self, width: int, heads: int, source_width: int, source: str = "text") -> None:
        _check_heads(width, heads)
        super().__init__(
            sources=Parallel(q=Identity(), k=UseContext(source), v=UseContext(source)),
            project=Distribute(
                to_q=nn.Linear(width, width, bias=False),
                to_k=nn.Linear(source_width, width, bias=False),
                to_v=nn.Linear(source_width, width, bias=False),
            ),
            attend=Attend(heads),
            to_out=nn.Linear(width, width),
        )
        self.width: Final = width


def _check_heads(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ModelError(
            f"{width} features cannot be divided among {heads} heads.",
            hint="Choose a number of heads that divides the width.",
        )
