"""The LoRAs of several adapters at one layer, each in rows of its own, computed together."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (  # dictionaries that torch keeps for its lifetime
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from refiners_core import RowScale
from refiners_lora.method.change import Change
from refiners_lora.method.low_rank import LowRank

_HOOKS: Final = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
)
_GLOBAL_HOOKS: Final = (_global_forward_hooks, _global_forward_pre_hooks)
_COPIES: Final = 4
"""The number of copies of its factors that a LoRA may have in a batch."""
_SMALL: Final = 256
"""The ranks of its rows together up to which copies do not matter."""


_ALL: Final = -1
"""The row that means all, where they have one LoRA at one scale."""


class Part(NamedTuple):
    """A plain LoRA at a layer, and its scale in each row."""

    down: Tensor
    """(rank, in)."""
    up: Tensor
    """(out, rank)."""
    factor: float
    """The strength of the LoRA at a scale of 1."""
    scale: RowScale


class Step(NamedTuple):
    """LoRAs of one rank, each in rows of its own, that two products of batches of matrices add."""

    rows: Tensor | None
    """The rows that have one; None if all rows take part, those without a LoRA by zeros."""
    positions: Tensor
    """(rows, rank): the ranks of each row among those of all LoRAs of a layer; one row if all rows
    have the same."""
    strengths: Tensor
    """(rows, 1, 1)."""


class Layout:
    """The order in which the LoRAs of a layer are added to each row; the same for many layers.

    A row adds its LoRAs one after another, in products whose sizes are those of the LoRA alone. So
    it has the bits that it has without the LoRAs of other rows.

    Args:
        parts: The LoRAs, from the outermost inwards.
    """

    __slots__ = ("_zeros", "count", "steps")

    def __init__(self, parts: Sequence[Part]) -> None:
        like = parts[0].down
        self.count: Final = len(parts[0].scale.scales)
        self._zeros: Final[dict[int, Tensor]] = {}
        end = sum(len(part.down) for part in parts)  # past the ranks is one of zeros
        levels = [0] * self.count
        stages: list[dict[int, dict[int, tuple[int, float]]]] = []  # by rank, then by row
        start = end
        for part in reversed(parts):
            rank, scale = len(part.down), part.scale
            start -= rank
            places = zip(scale.active.tolist(), scale.values.tolist(), strict=True)
            if scale.whole is not None:
                level = max(levels)
                levels = [level + 1] * self.count
                stages.append({rank: {_ALL: (start, float(scale.whole) * part.factor)}})
                continue
            for row, value in places:
                if levels[row] == len(stages):
                    stages.append({})
                stages[levels[row]].setdefault(rank, {})[row] = start, value * part.factor
                levels[row] += 1
        self.steps: Final = [
            self._step(rank, rows, end, len(stage) == 1, like)
            for stage in stages
            for rank, rows in stage.items()
        ]

    def _step(
        self,
        rank: int,
        rows: Mapping[int, tuple[int, float]],
        end: int,
        is_only: bool,
        like: Tensor,
    ) -> Step:
        """Returns the step of one rank.

        Args:
            rank: The rank.
            rows: For each row the first position of its ranks, and its strength.
            end: The position of zeros.
            is_only: Whether no other rank is added to rows at this time.
            like: A weight, of whose dtype and device the tensors are.
        """
        chosen = range(self.count) if is_only and _ALL not in rows else [*rows]
        starts = [rows.get(row) for row in chosen]
        positions = [
            [end] * rank if start is None else [*range(start[0], start[0] + rank)]
            for start in starts
        ]
        strengths = [0.0 if start is None else start[1] for start in starts]
        return Step(
            None if is_only else torch.tensor(chosen, device=like.device),
            torch.tensor(positions, device=like.device),
            like.new_tensor(strengths)[:, None, None],
        )

    def gathered(self, factors: Sequence[Tensor], width: int) -> list[Tensor]:
        """Returns the ranks of the rows of each step, (rows, rank, width), from (rank, width)."""
        zeros = self._zeros.get(width)
        if zeros is None:
            zeros = self._zeros[width] = factors[0].new_zeros(1, width)
        ranks = torch.cat([*factors, zeros])
        return [
            ranks.index_select(0, step.positions.view(-1)).view(*step.positions.shape, width)
            for step in self.steps
        ]


class Joint:
    """The factors of several LoRAs, which are computed together as far as they have one rank.

    The layer adds `(x down) up` of each step to its output. A row without an adapter gets exactly
    0. It lasts for one generation.

    Args:
        inner: The layer inside all of them.
        parts: The LoRAs, from the outermost inwards.
        layout: The ranks of each row.
    """

    __slots__ = ("inner", "linear", "steps")

    def __init__(self, inner: nn.Module, parts: Sequence[Part], layout: Layout) -> None:
        self.inner: Final = inner
        first = parts[0]
        downs = layout.gathered([part.down for part in parts], first.down.shape[1])
        ups = layout.gathered([part.up.t() for part in parts], first.up.shape[0])
        steps: list[tuple[Tensor | None, Tensor, Tensor]] = []
        for step, ranks, up in zip(layout.steps, downs, ups, strict=True):
            # Contiguous, because this is faster at each of many calls.
            down, up = ranks.transpose(1, 2).contiguous(), up * step.strengths
            if step.rows is None and len(down) != layout.count:
                down, up = (part.expand(layout.count, -1, -1) for part in (down, up))
            steps.append((step.rows, down, up))
        self.steps: Final = steps
        """For each step its rows, (rows, in, rank), and (rows, rank, out) with strengths."""
        self.linear: Final = _linear_weights(inner)
        """The weight and the bias of the layer, if calling it does nothing but apply them."""

    def added(self, y: Tensor, x: Tensor) -> Tensor:
        """Returns the output of the layer with all LoRAs.

        Args:
            y: The output of the layer inside.
            x: Its input.
        """
        for rows, down, up in self.steps:
            if rows is None:
                y = torch.baddbmm(y, torch.bmm(x, down), up)
            else:
                low = torch.bmm(x.index_select(0, rows), down)
                y = y.index_copy(0, rows, torch.baddbmm(y.index_select(0, rows), low, up))
        return y


def _linear_weights(layer: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Returns the weights of a plain linear layer without hooks; None for any other layer."""
    state: Any = layer.__dict__
    is_plain = type(layer) is nn.Linear and "forward" not in state
    if not is_plain or any(state[hooks] for hooks in _HOOKS) or any(_GLOBAL_HOOKS):
        return None
    return state["_parameters"]["weight"], state["_parameters"]["bias"]


def part_of(change: Change, scale: RowScale) -> Part | None:
    """Returns a plain LoRA of a linear layer with its scale; None for any other change, for weights
    that are trained, and for layers with hooks."""
    if type(change) is not LowRank or change.offset is not None or len(change._modules) != 2:
        return None
    weights: list[Any] = []
    for layer in change._modules.values():
        state: Any = layer.__dict__
        weight = state["_parameters"]["weight"]
        if (
            type(layer) is not nn.Linear
            or state["_parameters"]["bias"] is not None
            or weight.requires_grad
            or state["_forward_hooks"]
            or state["_forward_pre_hooks"]
        ):
            return None
        weights.append(weight.data)
    rank = len(weights[0])
    if rank * (1 if scale.whole is not None else len(scale.active)) > max(_SMALL, _COPIES * rank):
        return None
    return Part(weights[0], weights[1], change.factor, scale)
