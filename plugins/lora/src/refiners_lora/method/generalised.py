"""GLoRA: a low-rank update that reads the base weight (arXiv:2306.07967)."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from refiners_core import Context
from refiners_lora.method.change import Dense, Operation, Tensors
from refiners_lora.method.hadamard import tucker


class Generalised(Dense):
    """Computes `alpha / rank * (W a_1 a_2 + b_1 b_2)`.

    `a_1` is (in, rank), `a_2` (rank, in), `b_1` (out, rank) and `b_2` (rank, in, *kernel), or
    (rank, in) beside a core `bm`.
    """

    title = "a GLoRA"
    marks: ClassVar = frozenset({"a1", "a2", "b1", "b2"})
    needs: ClassVar = (("a1",), ("a2",), ("b1",), ("b2",))
    may: ClassVar = frozenset({"bm"})
    needs_base: ClassVar = True

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        for letter in "ab":
            outer, inner = tensors[f"{letter}1"], tensors[f"{letter}2"]
            if outer.ndim not in (2, 4) or inner.ndim not in (2, 4) or outer.shape[1] != len(inner):
                shapes = f"{letter}1 is {[*outer.shape]}, {letter}2 is {[*inner.shape]}"
                return f"do not share a rank: {shapes}"
        if tensors["a1"].shape[0] != tensors["a2"].shape[1]:
            return f"are not square in a: {[*tensors['a1'].shape]} and {[*tensors['a2'].shape]}"
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        inner = tensors.get("bm", tensors["b2"])
        kernel = [*inner.shape[2:]] if inner.shape[2:] not in ((), (1, 1)) else []
        return [tensors["a1"].shape[0], *kernel], [tensors["b1"].shape[0]]

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int | None:
        return tensors["a2"].shape[0]

    def weight_delta(self, weight: Tensor) -> Tensor:
        product = torch.einsum("oi...,ir,rj->oj...", weight, self._flat("a1"), self._flat("a2"))
        return (product + self._update()) * self.factor

    def run(self, context: Context, *inputs: Any) -> Tensor:
        x, weight = inputs[:2]
        apply = self.apply_weight
        mixed = _on_channels(x, (self._flat("a1"), self._flat("a2")), apply)
        return (apply(mixed, weight) + apply(x, self._update().to(x.dtype))) * self.factor

    def _update(self) -> Tensor:
        b1, b2, core = self._flat("b1"), self._flat("b2"), self.role("bm")
        whole = b1 @ b2 if core is None else tucker(core, b1.T, b2)
        return whole.view(self.apply_weight.shape)

    def _flat(self, role: str) -> Tensor:
        return self.known(role).flatten(1)


def _on_channels(x: Tensor, factors: tuple[Tensor, Tensor], apply: Operation) -> Tensor:
    """Applies the product of two factors to the channels that a change reads."""
    is_map = len(apply.shape) == 4
    rows = x[:, : apply.shape[1]].movedim(1, -1) if is_map else x
    outer, inner = (factor.to(x.dtype) for factor in factors)
    rows = F.linear(F.linear(rows, inner), outer)
    return rows.movedim(-1, 1) if is_map else rows
