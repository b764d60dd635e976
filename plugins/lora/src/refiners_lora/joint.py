"""The LoRAs of several adapters at one layer, each in rows of its own, computed together."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import RowScale
from refiners_lora.method.change import Change
from refiners_lora.method.low_rank import LowRank

_WASTE: Final = 1_000_000
"""The products for rows of other adapters that are cheaper than computing an adapter apart."""


class Part(NamedTuple):
    """A LoRA at a layer, and its scale in each row."""

    change: LowRank
    scale: RowScale


class Joint:
    """Adds several LoRAs to the output of a linear layer, as one of all their ranks.

    `y + ((x A^T) * m) B^T`, where A and B hold the factors of all, and m is the strength of each
    rank in each row. A row without an adapter gets exactly 0. It lasts for one generation.

    Args:
        inner: The layer inside all of them.
        parts: The LoRAs, the outermost first.
    """

    def __init__(self, inner: nn.Module, parts: Sequence[Part]) -> None:
        self.inner: Final = inner
        weights = [factors(part.change) for part in parts]
        ranks = [len(down) for down, _ in weights]
        used = [len(part.scale.active) * rank for part, rank in zip(parts, ranks, strict=True)]
        down, up = weights[0]
        idle = sum(ranks) * len(parts[0].scale.scales) - sum(used)
        self.waste: Final = idle * (down.shape[1] + up.shape[0]) / (_WASTE * len(parts))
        """The share of the products for other rows, for each token; above 1 they take too long."""
        self._parts: Final = parts
        self._down: Tensor | None = None
        self._up: Tensor | None = None
        self._strengths: Tensor | None = None

    def run(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the output of the layer with all changes.

        Args:
            x: The inputs of the layer, (rows, tokens, in).
            y: Its outputs, (rows, tokens, out).
        """
        if self._down is None:
            self._join()
        hidden = F.linear(x, self._down) * self._strengths  # pyright: ignore
        flat = torch.addmm(y.view(-1, y.shape[-1]), hidden.view(-1, hidden.shape[-1]), self._up)  # pyright: ignore
        return flat.view(y.shape)

    def _join(self) -> None:
        weights = [factors(part.change) for part in self._parts]
        self._down = torch.cat([down for down, _ in weights])
        self._up = torch.cat([up for _, up in weights], dim=1).t().contiguous()
        columns = [
            (part.scale.scales * part.change.factor)[:, None].expand(-1, len(down))
            for part, (down, _) in zip(self._parts, weights, strict=True)
        ]
        self._strengths = torch.cat(columns, dim=1)[:, None].to(self._down.dtype)


def factors(change: LowRank) -> tuple[Tensor, Tensor]:
    """Returns the weights of a plain LoRA of a linear layer, (rank, in) and (out, rank)."""
    modules: Any = change._modules
    return modules["down"].weight, modules["up"].weight


def is_joinable(change: Change) -> bool:
    """Whether a change is a plain LoRA of a linear layer, of frozen weights and without hooks."""
    if type(change) is not LowRank or change.offset is not None:
        return False
    layers: list[Any] = [*change]
    return [*change._modules] == ["down", "up"] and all(
        type(layer) is nn.Linear
        and layer._parameters["bias"] is None
        and not layer.weight.requires_grad
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        for layer in layers
    )
