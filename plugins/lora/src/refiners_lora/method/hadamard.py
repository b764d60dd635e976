"""LoHa: the elementwise product of two products (arXiv:2108.06098, section 2.2)."""

from typing import ClassVar

import torch
from torch import Tensor

from refiners_lora.method.change import Dense, Tensors


class Hadamard(Dense):
    """Computes `alpha / rank * (a_1 @ b_1) * (a_2 @ b_2)`, each product possibly around a core.

    Without cores the factors are (out, rank) and (rank, in * kernel). A core tensor `hada_t1` is
    (rank, rank, height, width); its factors are (rank, out) and (rank, in).
    """

    title = "a LoHa"
    marks: ClassVar = frozenset({f"hada_w{i}_{half}" for i in "12" for half in "ab"})
    needs: ClassVar = tuple([(role,) for role in sorted(marks)])
    may: ClassVar = frozenset({"hada_t1", "hada_t2"})

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        for lone, other in (("hada_t1", "hada_t2"), ("hada_t2", "hada_t1")):
            if lone in tensors and other not in tensors:
                return f"are incomplete: there is a `{lone}`, but no `{other}`"
        has_core = "hada_t1" in tensors
        for i in "12":
            a, b = tensors[f"hada_w{i}_a"], tensors[f"hada_w{i}_b"]
            core = tensors.get(f"hada_t{i}")
            ranks = {a.shape[0 if has_core else -1], b.shape[0]}
            if core is not None:
                ranks |= {*core.shape[:2]}
            is_core = core is None or core.ndim == 4
            if a.ndim != 2 or b.ndim != 2 or len(ranks) != 1 or not is_core:
                return f"do not share a rank: w{i}_a is {[*a.shape]}, w{i}_b is {[*b.shape]}"
        shapes = [tensors[f"hada_w{i}_{half}"].shape for i in "12" for half in "ab"]
        axes = (1, 1) if has_core else (0, 1)
        if any(shapes[i].numel() and shapes[i][axes[i]] != shapes[i + 2][axes[i]] for i in (0, 1)):
            return f"are products of two sizes: {', '.join(str([*shape]) for shape in shapes)}"
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        a, b, core = (tensors.get(f"hada_{role}1{half}") for role, half in _FIRST)
        assert a is not None
        assert b is not None
        if core is None:
            return [b.shape[1]], [a.shape[0]]
        return [b.shape[1], *core.shape[2:]], [a.shape[1]]

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int | None:
        return tensors["hada_w1_b"].shape[0]

    def weight_delta(self, weight: Tensor) -> Tensor:
        return (self._half("1") * self._half("2") * self.factor).view(self.apply_weight.shape)

    def _half(self, i: str) -> Tensor:
        a, b, core = (self.role(f"hada_{role}{i}{half}") for role, half in _FIRST)
        assert a is not None
        assert b is not None
        return a @ b if core is None else tucker(core, a, b)


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Returns the weight of a convolution from a core tensor and two factors.

    Args:
        core: (rank, rank, height, width).
        a: (rank, out).
        b: (rank, in).

    Returns:
        The weight, (out, in, height, width).
    """
    return torch.einsum("mn...,mo,ni->oi...", core, a, b)


_FIRST = (("w", "_a"), ("w", "_b"), ("t", ""))
