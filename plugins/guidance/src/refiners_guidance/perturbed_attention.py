"""Perturbed-attention guidance (PAG): a pass in which each token sees itself alone."""

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from refiners_core import Chain, Context, Edit, Seat, Selection
from refiners_guidance.branch import ExtraPass


class PerturbedAttention(ExtraPass):
    """Leads away from a pass in which each token of some self-attentions sees itself alone.

    There the map of attention is the identity, so that the output is the values (arXiv:2403.17377,
    equation 14). It needs neither a negative prompt nor guidance, and improves structure.

    Args:
        strength: The strength of guidance at scale 1 (`s`).
        layers: Parts of the network whose self-attentions are perturbed, such as `mid` or `up.0`.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `strength` is negative, or `layers` is not a list of texts.
    """

    def worse(self, attention: Selection) -> Iterable[Edit]:
        """Lets each token of the pass see itself alone."""

        def alone(inner: nn.Module, seat: Seat) -> nn.Module:
            return SeesItself(self.key, inner)

        return attention.wrap(alone, stage="output")


class SeesItself(Chain):
    """Returns the values in the rows of one branch, and attention in all others.

    Args:
        branch: The branch.
        attend: The attention.
    """

    attend: nn.Module

    def __init__(self, branch: str, attend: nn.Module) -> None:
        super().__init__(attend=attend)
        self.branch: Final = branch

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        names: Sequence[str] = context["branches"]
        attended: Tensor = self.call(self.attend, context, *inputs)
        if self.branch not in names:
            return attended
        index = names.index(self.branch)
        parts = list(attended.chunk(len(names)))
        parts[index] = inputs[2].chunk(len(names))[index]
        return torch.cat(parts)

    def extra_repr(self) -> str:
        return repr(self.branch)
