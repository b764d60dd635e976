"""Attention in named parts: project to queries, keys and values, attend, project back."""

from typing import Final

from torch import nn

from refiners_core.errors import ModelError
from refiners_core.layers.attend import Attend
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Distribute, Identity, Parallel, UseContext


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
