"""IA3: a factor for each feature (arXiv:2205.05638)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from refiners_core import Context, Seat
from refiners_lora.method.change import Dense, Operation, Tensors, operation


class Rescaling(Dense):
    """Multiplies input or output features of a layer.

    LyCORIS stores what is added to 1 as `weight`, with `on_input`, and leaves the bias alone; PEFT
    stores the factors themselves as `ia3_l` and multiplies the bias of outputs as well. PEFT's
    factors are (out, 1) for outputs and (1, in) for inputs.

    Args:
        apply: The way in which the layer applies its weight.
        tensors: The published weights by their roles.
        on_input: Whether input features are multiplied.
    """

    title = "an IA3"
    marks: ClassVar = frozenset({"on_input", "ia3_l"})
    needs: ClassVar = (("weight", "ia3_l"), ("on_input", "ia3_l"))
    may: ClassVar = frozenset({"weight"})
    needs_base: ClassVar = True

    def __init__(self, apply: Operation, tensors: Tensors, on_input: bool) -> None:
        weights = {role: tensor for role, tensor in tensors.items() if role != "on_input"}
        super().__init__(apply, weights, None, 1.0)
        self.on_input = on_input

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        on_input, factors = _read(tensors)
        apply = operation(seat)
        if on_input and len(apply.shape) == 4 and factors.numel() < apply.shape[1]:
            apply = operation(seat, factors.numel())
        return cls(apply, tensors, on_input)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        factors = _read(tensors)[1]
        wide = [size for size in factors.shape if size != 1]
        return f"are not a factor for each feature: {[*factors.shape]}" if len(wide) > 1 else ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        on_input, factors = _read(tensors)
        return ([factors.numel()], None) if on_input else (None, [factors.numel()])

    @classmethod
    def fits(cls, tensors: Tensors, sizes: tuple[int, ...]) -> bool:
        on_input, factors = _read(tensors)
        return factors.numel() == sizes[1 if on_input else 0]

    def weight_delta(self, weight: Tensor) -> Tensor:
        return weight * self._added(weight.ndim, 1 if self.on_input else 0)

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
        changes = dict(super().delta(weight))
        if bias is not None and self._has_bias:
            changes["bias"] = bias.float() * self._added(1, 0)
        return changes

    def run(self, context: Context, *inputs: Any) -> Tensor:
        x, weight, bias = inputs[:3]
        axis = 1 if len(self.apply_weight.shape) == 4 else -1
        added = self._added(x.ndim, axis).to(x.dtype)
        if self.on_input:
            x = x[:, : self.apply_weight.shape[1]] if axis == 1 else x
            return self.apply_weight(x * added, weight)
        outputs = self.apply_weight(x, weight)
        if bias is not None and self._has_bias:
            outputs = outputs + bias.view(-1, *(1 for _ in weight.shape[2:]))
        return outputs * added

    def published(self) -> Mapping[str, Tensor]:
        weights = super().published()
        if "ia3_l" in weights:
            return weights
        return {**weights, "on_input": torch.tensor(int(self.on_input))}

    @property
    def _has_bias(self) -> bool:
        return "ia3_l" in self._parameters and not self.on_input

    def _added(self, dims: int, axis: int) -> Tensor:
        """Returns what is added to 1, along an axis of a tensor with so many axes."""
        whole = self.role("ia3_l")
        added = self.known("weight") if whole is None else whole - 1
        shape = [1] * dims
        shape[axis] = -1
        return added.reshape(shape)

    def extra_repr(self) -> str:
        return f"on_input={self.on_input}"


def _read(tensors: Tensors) -> tuple[bool, Tensor]:
    """Returns whether input features are multiplied, and the factors."""
    if "ia3_l" in tensors:
        factors = tensors["ia3_l"]
        return factors.ndim > 1 and len(factors) == 1, factors
    return bool(tensors["on_input"].item()), tensors["weight"]
