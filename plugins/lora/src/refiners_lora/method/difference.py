"""Full differences of weights and biases, of linear layers, convolutions and norms."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple, Self

from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import Context, Seat
from refiners_lora.method.change import Change, Operation, Tensors, operation, widened


class Difference(Change):
    """Adds `diff` to the weight and `diff_b` to the bias of a layer.

    LyCORIS calls the same of a norm `w_norm` and `b_norm`.

    Args:
        apply: The way in which a linear layer or convolution applies its weight; None for others.
        norm: The way in which a norm normalises; None for other layers. Without both, the layer is
            an embedding.
        tensors: The published weights by their roles.
    """

    title = "a difference of whole weights"
    has_rows_first: ClassVar = True
    marks: ClassVar = frozenset({"diff", "diff_b", "w_norm", "b_norm"})
    kinds: ClassVar = (
        *(nn.Linear, nn.Conv2d, nn.Embedding),
        *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
    )

    def __init__(self, apply: Operation | None, norm: "Norm | None", tensors: Tensors) -> None:
        super().__init__()
        self.apply_weight: Final = apply
        self.norm: Final = norm
        for role, tensor in tensors.items():
            self.register_parameter(role, nn.Parameter(tensor))

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Self:
        facts = seat.facts
        if seat.is_a(nn.Embedding):
            return cls(None, None, tensors)
        if not seat.is_a(nn.Linear, nn.Conv2d):
            norm = Norm(facts.get("num_groups"), facts["eps"], seat.is_a(nn.RMSNorm))
            return cls(None, norm, tensors)
        diff = tensors.get("diff")
        apply = operation(seat)
        if diff is not None and diff.ndim > 1 and diff.shape[1] < apply.shape[1]:
            apply = operation(seat, diff.shape[1])
        return cls(apply, None, tensors)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        sizes = {len(tensor) for tensor in tensors.values() if tensor.ndim}
        if len(sizes) == 1 and all(tensor.ndim for tensor in tensors.values()):
            return ""
        return f"differ in size: {', '.join(str([*t.shape]) for t in tensors.values())}"

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        weight = tensors.get("diff", tensors.get("w_norm"))
        if weight is None:
            return None, [len(tensors.get("diff_b", tensors.get("b_norm")))]  # pyright: ignore
        inputs = None if weight.ndim == 1 else [weight.shape[1]]
        if inputs is not None and weight.shape[2:] not in ((), (1, 1)):
            inputs += weight.shape[2:]
        return inputs, [weight.shape[0]]

    @classmethod
    def fits(cls, tensors: Tensors, sizes: tuple[int, ...]) -> bool:
        inputs, outputs = cls.sizes(tensors)
        weight = tensors.get("diff", tensors.get("w_norm"))
        is_whole = weight is None or (weight.ndim == 1) == (len(sizes) == 1)
        return is_whole and inputs in (None, [*sizes[1:]]) and outputs == [sizes[0]]

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        parts = {"weight": self._weight(), "bias": self._bias()}
        changes = {name: part.float() for name, part in parts.items() if part is not None}
        if "weight" in changes:
            change = changes["weight"]
            if weight.ndim > 1:
                change = change.reshape(*change.shape[:2], *weight.shape[2:])
            changes["weight"] = widened(change, weight)
        return changes

    def run(self, context: Context, *inputs: Any) -> Tensor:
        x: Tensor = inputs[0]
        weight, bias = self._weight(), self._bias()
        if self.norm is not None:
            return self.norm(x, weight, bias)
        if self.apply_weight is None:
            assert weight is not None
            return F.embedding(x, weight)
        column = None if bias is None else bias.view(-1, *(1 for _ in self.apply_weight.shape[2:]))
        if weight is None:
            zero = self.apply_weight(x, x.new_zeros(self.apply_weight.shape))
            return zero if column is None else zero + column
        outputs = self.apply_weight(x, weight.view(self.apply_weight.shape))
        return outputs if column is None else outputs + column

    def _weight(self) -> Tensor | None:
        return self._parameters.get("diff", self._parameters.get("w_norm"))

    def _bias(self) -> Tensor | None:
        return self._parameters.get("diff_b", self._parameters.get("b_norm"))

    def extra_repr(self) -> str:
        return ", ".join(f"{role}={[*part.shape]}" for role, part in self.named_parameters())


class Norm(NamedTuple):
    """The way in which a norm normalises features before it multiplies them."""

    groups: int | None
    """The number of groups; None for a norm over features."""
    epsilon: float
    is_root_mean_square: bool
    """Whether the mean is not subtracted."""

    def __call__(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Returns normalised features times a weight, 0 by default, plus a bias.

        The features of several heads may be on one axis, if the weight is for those of one.
        """
        if weight is None:
            assert bias is not None
            weight = bias.new_zeros(len(bias))
        if self.groups is not None:
            return F.group_norm(x, self.groups, weight, bias, self.epsilon)
        if not self.is_root_mean_square:
            return F.layer_norm(x, weight.shape, weight, bias, self.epsilon)
        heads = x.unflatten(-1, (-1, len(weight)))
        turned = F.rms_norm(heads.float(), weight.shape, weight.float(), self.epsilon)
        return turned.to(x.dtype).flatten(-2)
