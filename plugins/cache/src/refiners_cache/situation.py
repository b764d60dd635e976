"""The facts that a kept value depends on, besides the latents and the timestep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from refiners_core import Context


@dataclass(frozen=True)
class Situation:
    """The facts of one pass of the network: a value is reused only where they are the same."""

    phase: int | None
    """The phase of the generation, which ends where an adapter begins, ends or changes its
    scale."""
    branches: tuple[str, ...]
    """The branches of the pass."""
    shape: torch.Size
    """The shape of the input: rows, channels, height and width."""
    names: tuple[tuple[str, str], ...]
    """The context key and the branch of each tensor of the conditioning."""
    tensors: tuple[Tensor, ...]
    """These tensors."""

    @classmethod
    def of(cls, context: Context, x: Tensor) -> Self:
        """Returns the facts of a pass over an input."""
        conditions: Mapping[str, Mapping[str, Tensor]] = context.get("conditions", {})
        items: list[tuple[tuple[str, str], Tensor]] = [
            ((key, branch), tensor)
            for key, tensors in conditions.items()
            for branch, tensor in tensors.items()
        ]
        return cls(
            phase=context.get("phase"),
            branches=tuple(context.get("branches", ())),
            shape=x.shape,
            names=tuple([name for name, _ in items]),
            tensors=tuple([tensor for _, tensor in items]),
        )

    def is_same(self, other: Any) -> bool:
        """Whether another situation has the same facts, and equal tensors: an adapter that adds a
        branch may write the same ones anew at every step."""
        if not isinstance(other, Situation):
            return False
        facts = (self.phase, self.branches, self.shape, self.names)
        if facts != (other.phase, other.branches, other.shape, other.names):
            return False
        return all(map(_is_equal, self.tensors, other.tensors))


def _is_equal(a: Tensor, b: Tensor) -> bool:
    is_alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    return a is b or (is_alike and torch.equal(a, b))
