"""The LoRAs of several adapters at one layer, each in rows of its own, computed together."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

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
"""The number of copies of each factor, on average, that a batch may hold."""
_SMALL: Final = 256
"""The ranks of all rows together up to which copies do not matter."""


class Part(NamedTuple):
    """A plain LoRA at a layer, and its scale in each row."""

    down: Tensor
    """(rank, in)."""
    up: Tensor
    """(out, rank)."""
    factor: float
    """The strength of the LoRA at a scale of 1."""
    scale: RowScale


class Layout:
    """The ranks of each row, among those of all LoRAs of a layer; the same for many layers.

    Args:
        rows: The positions of the ranks of each row, with their strengths; equally many, and one
            row for all if all are alike.
        count: The number of rows of the batch.
        like: A weight, of whose dtype and device the tensors are.
    """

    __slots__ = ("_zeros", "positions", "rows", "strengths")

    def __init__(
        self, rows: Sequence[Sequence[tuple[int, float]]], count: int, like: Tensor
    ) -> None:
        positions = [[position for position, _ in row] for row in rows]
        strengths = [[strength for _, strength in row] for row in rows]
        self.positions: Final = torch.tensor(positions, device=like.device)
        self.strengths: Final = like.new_tensor(strengths)[..., None]
        self.rows: Final = count
        self._zeros: Final[dict[int, Tensor]] = {}

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self | None:
        """Returns the layout of LoRAs; None if the copies of their factors would take much memory.

        Args:
            parts: The LoRAs.
        """
        rows: list[list[tuple[int, float]]] = [[] for _ in range(len(parts[0].scale.scales))]
        start = 0
        for part in parts:
            ranks = range(start, start + len(part.down))
            scale = part.scale
            for row, value in zip(scale.active.tolist(), scale.values.tolist(), strict=True):
                rows[row] += [(position, value * part.factor) for position in ranks]
            start = ranks.stop
        count, most = len(rows), max(map(len, rows))
        if all(part.scale.whole is not None for part in parts):
            rows = rows[:1]
        if most * len(rows) > max(_SMALL, _COPIES * start):
            return None
        # Past the ranks of all LoRAs is one of zeros, for rows with fewer.
        filled = [[*row, *[(start, 0.0)] * (most - len(row))] for row in rows]
        return cls(filled, count, parts[0].down)

    def gathered(self, factors: Sequence[Tensor], width: int) -> Tensor:
        """Returns the ranks of each row, (rows, rank, width), from factors (rank, width)."""
        zeros = self._zeros.get(width)
        if zeros is None:
            zeros = self._zeros[width] = self.strengths.new_zeros(1, width)
        ranks = torch.cat([*factors, zeros]).index_select(0, self.positions.view(-1))
        return ranks.view(*self.positions.shape, width)


class Joint:
    """The factors of several LoRAs, by which two products of batches of matrices compute all.

    The layer adds `(x down) up` to its output. Each row has a copy of the factors of its adapters,
    and zeros up to the greatest rank: a row without an adapter gets exactly 0. It lasts for one
    generation.

    Args:
        inner: The layer inside all of them.
        parts: The LoRAs.
        layout: The ranks of each row.
    """

    __slots__ = ("down", "inner", "linear", "up")

    def __init__(self, inner: nn.Module, parts: Sequence[Part], layout: Layout) -> None:
        self.inner: Final = inner
        first = parts[0]
        down = layout.gathered([part.down for part in parts], first.down.shape[1])
        up = layout.gathered([part.up.t() for part in parts], first.up.shape[0])
        # Contiguous, because this is faster at each of many calls.
        down, up = down.transpose(1, 2).contiguous(), up * layout.strengths
        rows = layout.rows
        self.down: Final = down if len(down) == rows else down.expand(rows, -1, -1)
        """(rows, in, rank)."""
        self.up: Final = up if len(up) == rows else up.expand(rows, -1, -1)
        """(rows, rank, out), with strengths."""
        self.linear: Final = _linear_weights(inner)
        """The weight and the bias of the layer, if calling it does nothing but apply them."""


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
    return Part(weights[0], weights[1], change.factor, scale)
