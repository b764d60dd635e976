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
    """Lets every query look at all keys and take in their values: `softmax(q k^T / sqrt(d)) v`.

    Scaled dot-product attention in several heads (arXiv:1706.03762, section 3.2). The one place
    that adapters of attention edit, whatever projections stand around it. An adapter that edits its
    inputs may add a mask as a fourth one; one that reads them passes on what follows the first
    three.

    Args:
        heads: How many parts of the width attend on their own.
        is_causal: Whether a token looks only at itself and at those before it.
    """

    def __init__(self, heads: int, is_causal: bool = False) -> None:
        super().__init__()
        self.heads: Final = heads
        self.is_causal: Final = is_causal

    def forward(
        self,
        q: Float[Tensor, "rows queries inner"],
        k: Float[Tensor, "rows tokens inner"],
        v: Float[Tensor, "rows tokens inner"],
        mask: Float[Tensor, "#rows #queries tokens"]
        | Bool[Tensor, "#rows #queries tokens"]
        | None = None,
    ) -> Float[Tensor, "rows queries inner"]:
        """Attends; the tokens of keys and values may be others than those of the queries.

        Args:
            q: The queries.
            k: The keys.
            v: The values, one for each key.
            mask: Numbers that are added to `q k^T / sqrt(d)`, the same for all heads; or, as bool,
                which keys a query looks at. A causal attention stays causal under a mask.
        """
        rows, queries, inner = q.shape
        shape = (rows, -1, self.heads, inner // self.heads)
        x = scaled_dot_product_attention(
            q.view(shape).transpose(1, 2),
            k.view(shape).transpose(1, 2),
            v.view(shape).transpose(1, 2),
            attn_mask=None if mask is None else self._for_all_heads(mask, queries),
            is_causal=self.is_causal and mask is None,
        )
        return x.transpose(1, 2).reshape(rows, queries, inner)

    def _for_all_heads(self, mask: Tensor, queries: int) -> Tensor:
        if self.is_causal:
            later = torch.ones(queries, mask.shape[-1], dtype=torch.bool, device=mask.device)
            mask = mask.masked_fill(later.triu(1), float("-inf") if mask.is_floating_point() else 0)
        return mask[:, None]


class SelfAttention(Chain):
    """Tokens look at one another.

    Args:
        width: Features of a token, inside and out.
        heads: How many parts of the width attend on their own.
        has_bias: Whether queries, keys and values have a bias; the output always has one.
        is_causal: Whether a token looks only at itself and at those before it.
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
    """Tokens look at others, which the context has: an image at a text.

    Args:
        width: Features of a token, inside and out.
        heads: How many parts of the width attend on their own.
        source_width: Features of a token that is looked at.
        source: The context key of the tokens that are looked at.
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
