"""Self-attention that is shared with the first picture of a batch."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Context

EPSILON: Final = 1e-5
"""Added to variances, as in the authors' released code."""


class SharedAttention(Chain):
    """Lets the pictures of each branch look at its first one too (arXiv:2312.02133, section 4).

    The first picture of each branch, and all pictures while the adapter is inactive, take what
    `attend` alone makes of the inputs. At a strength below 1 the others take that share of the
    shared attention, and the rest of the plain one.

    Args:
        strength: The context key of the adapter's scale, 0-d.
        share: Multiplies the keys of the first picture.
        shift: Added to the logits of the first picture's keys.
        attend: The attention.
    """

    attend: nn.Module

    def __init__(self, strength: str, share: float, shift: float, attend: nn.Module) -> None:
        super().__init__(attend=attend)
        self.strength: Final = strength
        self.share: Final = share
        self.shift: Final = shift

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows queries inner"]:
        plain: Tensor = self.call(self.attend, context, *inputs)
        strength: Tensor | None = context.get(self.strength)
        if strength is None:
            return plain
        branches: Sequence[str] = context["branches"]
        # All rows again, the first ones for nothing: what lies inside may count on every branch.
        shared: Tensor = self.call(self.attend, context, *self._joined(len(branches), *inputs))
        first, others = _by_branch(plain, len(branches)).split_with_sizes(
            [1, len(plain) // len(branches) - 1], dim=1
        )
        mixed = torch.lerp(others, _by_branch(shared, len(branches))[:, 1:], strength)
        return torch.cat([first, mixed], dim=1).flatten(0, 1)

    def _joined(
        self, branches: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the inputs of the shared attention (equations 3 and 4)."""
        q, k = aligned(q, branches), aligned(k, branches)
        joined = q, _beside(k, branches, self.share), _beside(v, branches)
        if mask is None:
            if self.shift == 0:
                return joined
            mask = q.new_zeros(1, 1, k.shape[1])
        elif mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))
        to_first = mask if len(mask) == 1 else _firsts(mask, branches)
        return *joined, torch.cat([mask, to_first + self.shift], dim=2)

    def extra_repr(self) -> str:
        return f"{self.strength!r}, share={self.share:g}, shift={self.shift:g}"


def aligned(
    x: Float[Tensor, "rows tokens inner"], branches: int
) -> Float[Tensor, "rows tokens inner"]:
    """Gives features the mean and the spread, over the tokens, of the first picture of the same
    branch (AdaIN, equation 3).

    Args:
        x: Queries or keys, branch by branch.
        branches: How many branches the rows belong to.
    """
    mean, spread = x.mean(1, keepdim=True), (x.var(1, keepdim=True) + EPSILON).sqrt()
    return (x - mean) / spread * _firsts(spread, branches) + _firsts(mean, branches)


def _beside(x: Tensor, branches: int, factor: float = 1.0) -> Tensor:
    """Joins the tokens of each picture and those of the first picture of its branch."""
    return torch.cat([x, _firsts(x, branches) * factor], dim=1)


def _firsts(x: Tensor, branches: int) -> Tensor:
    """Returns for each row the first row of its branch."""
    rows = _by_branch(x, branches)
    return rows[:, :1].expand_as(rows).flatten(0, 1)


def _by_branch(x: Tensor, branches: int) -> Tensor:
    return x.unflatten(0, (branches, -1))
