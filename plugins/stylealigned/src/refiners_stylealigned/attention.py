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
    """Lets the pictures of each guidance branch attend to its first (arXiv:2312.02133, section 4).

    The first picture of each branch, and all pictures while the adapter is inactive, keep the plain
    output of `attend`. The outputs of the others are interpolated between the plain and the shared
    attention, by the strength.

    Args:
        strength: The context key of the adapter's scale, 0-d or (rows, 1, 1).
        share: A factor of the first picture's keys.
        shift: A term added to the logits of the first picture's keys.
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
        # All rows run again, the first rows needlessly: layers inside may rely on whole branches.
        shared: Tensor = self.call(self.attend, context, *self._joined(len(branches), *inputs))
        first, others = _by_branch(plain, len(branches)).split_with_sizes(
            [1, len(plain) // len(branches) - 1], dim=1
        )
        if strength.ndim:  # one for each row
            strength = _by_branch(strength, len(branches))[:, 1:]
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
    """Gives features the mean and deviation, over the tokens, of the first picture of their branch
    (AdaIN, equation 3).

    Args:
        x: Queries or keys, branch by branch.
        branches: The number of branches.
    """
    mean, spread = x.mean(1, keepdim=True), (x.var(1, keepdim=True) + EPSILON).sqrt()
    return (x - mean) / spread * _firsts(spread, branches) + _firsts(mean, branches)


def _beside(x: Tensor, branches: int, factor: float = 1.0) -> Tensor:
    """Appends the tokens of the first picture of its branch to those of each picture."""
    return torch.cat([x, _firsts(x, branches) * factor], dim=1)


def _firsts(x: Tensor, branches: int) -> Tensor:
    """Returns the first row of its branch for each row."""
    rows = _by_branch(x, branches)
    return rows[:, :1].expand_as(rows).flatten(0, 1)


def _by_branch(x: Tensor, branches: int) -> Tensor:
    return x.unflatten(0, (branches, -1))
