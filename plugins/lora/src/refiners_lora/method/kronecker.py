"""LoKr: a Kronecker product of two factors (arXiv:2309.14859, appendix B)."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from refiners_core import Context, Seat
from refiners_lora.method.change import Dense, Tensors
from refiners_lora.method.hadamard import tucker


class Kronecker(Dense):
    """Computes `alpha / rank * kron(w_1, w_2)`; each factor is stored whole or as a product.

    `w_1` is (a, c) and `w_2` (b, d, *kernel) for a weight (a * b, c * d, *kernel). If both are
    stored whole the rank is unknown, and the strength is 1 unless the file says otherwise.
    """

    title = "a LoKr"
    marks: ClassVar = frozenset({f"lokr_w{i}{end}" for i in "12" for end in ("", "_a", "_b")})
    needs: ClassVar = (
        ("lokr_w1", "lokr_w1_a"),
        ("lokr_w2", "lokr_w2_a"),
        ("lokr_w1_b", "lokr_w1"),
        ("lokr_w2_b", "lokr_w2"),
    )
    may: ClassVar = frozenset({"lokr_t2"})

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        for i in "12":
            a, b = tensors.get(f"lokr_w{i}_a"), tensors.get(f"lokr_w{i}_b")
            if a is None or b is None:
                continue
            core = tensors.get("lokr_t2") if i == "2" else None
            ranks = {a.shape[-1 if core is None else 0], b.shape[0]}
            if core is not None:
                ranks |= {*core.shape[:2]}
            if a.ndim != 2 or b.ndim != 2 or len(ranks) != 1:
                return f"do not share a rank: w{i}_a is {[*a.shape]}, w{i}_b is {[*b.shape]}"
        w1, w2 = tensors.get("lokr_w1"), tensors.get("lokr_w2")
        whole = [factor for factor in (w1, w2) if factor is not None]
        if any(factor.ndim < 2 for factor in whole):
            return f"are not matrices: {', '.join(str([*factor.shape]) for factor in whole)}"
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        (first, second) = _shapes(tensors)
        kernel = [*second[2:]] if second[2:] != (1, 1) else []
        return [first[1] * second[1], *kernel], [first[0] * second[0]]

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        if cls.rank_of(tensors) is None and alpha is not None:
            # Without a rank, alpha is the strength itself; files cannot say that, so it is folded.
            tensors = {**tensors, "lokr_w1": tensors["lokr_w1"] * alpha}
            alpha = None
        return super().of(seat, tensors, alpha)

    @classmethod
    def rank_of(cls, tensors: Tensors) -> int | None:
        if "lokr_w1_b" in tensors and "lokr_w1" not in tensors:
            return tensors["lokr_w1_b"].shape[0]
        return tensors["lokr_w2_b"].shape[0] if "lokr_w2" not in tensors else None

    def weight_delta(self, weight: Tensor) -> Tensor:
        first, second = self.factors()
        first = first.view(*first.shape, *(1 for _ in second.shape[2:]))
        return (torch.kron(first, second) * self.factor).view(self.apply_weight.shape)

    def run(self, context: Context, *inputs: Any) -> Tensor:
        x: Tensor = inputs[0]
        first, second = (factor.to(x.dtype) for factor in self.factors())
        if len(self.apply_weight.shape) != 2:
            return super().run(context, *inputs)
        # kron(a, b) x = b X a^T for x as a matrix X: the product is never built.
        parts = x.unflatten(-1, (first.shape[1], second.shape[1]))
        mixed = F.linear(parts, second.flatten(1)).transpose(-1, -2)
        return F.linear(mixed, first).transpose(-1, -2).flatten(-2) * self.factor

    def factors(self) -> tuple[Tensor, Tensor]:
        """Returns both factors of the Kronecker product, in float32."""
        first, second = self.role("lokr_w1"), self.role("lokr_w2")
        if first is None:
            first = self.known("lokr_w1_a") @ self.known("lokr_w1_b")
        if second is None:
            core, a, b = self.role("lokr_t2"), self.known("lokr_w2_a"), self.known("lokr_w2_b")
            second = a @ b if core is None else tucker(core, a, b)
        kernel = self.apply_weight.shape[2:]
        if second.ndim == 2 and kernel:
            second = second.view(len(second), -1, *kernel)
        return first, second


def _shapes(tensors: Tensors) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the shapes of both factors of the Kronecker product."""
    shapes: list[tuple[int, ...]] = []
    for i in "12":
        whole = tensors.get(f"lokr_w{i}")
        if whole is not None:
            shapes.append(tuple(whole.shape))
            continue
        a, b = tensors[f"lokr_w{i}_a"], tensors[f"lokr_w{i}_b"]
        core = tensors.get("lokr_t2") if i == "2" else None
        kernel = () if core is None else tuple(core.shape[2:])
        shapes.append((a.shape[0 if core is None else 1], b.shape[1], *kernel))
    return shapes[0], shapes[1]
