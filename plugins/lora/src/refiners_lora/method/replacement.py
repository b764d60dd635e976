"""Weights and biases that replace those of a layer, as PEFT stores them."""

from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from refiners_core import Seat
from refiners_lora.method.change import Change, Tensors
from refiners_lora.method.difference import Difference

_NEAR: Final = 1e-2
"""The relative difference up to which a copy of a base weight counts as the same: that of a cast to
a dtype of 8 bits of precision."""


class Replacement(Difference):
    """Replaces the weight, the bias or both of a layer: `modules_to_save` and `bias` of PEFT.

    It is built as the difference from the layer, so that it has a strength and adds up with others.
    """

    title = "a replacement of whole weights"
    marks: ClassVar = frozenset({"whole", "whole_bias"})
    has_rows_first: ClassVar = True
    reads_base: ClassVar = True

    @classmethod
    def of(cls, seat: Seat, tensors: Tensors, alpha: float | None) -> Change:  # pyright: ignore
        layer: Any = seat.layer
        names = ("w_norm", "b_norm") if _is_norm(seat) else ("diff", "diff_b")
        changes: dict[str, Tensor] = {}
        for role, base, name in zip(
            ("whole", "whole_bias"), (layer.weight, getattr(layer, "bias", None)), names,
            strict=True,
        ):  # fmt: skip
            if role in tensors:
                changes[name] = difference(tensors[role], base)
        return Difference.of(seat, changes, alpha)

    @classmethod
    def fault(cls, tensors: Tensors) -> str:
        del tensors  # in the form of the published layer, which may be transposed
        return ""

    @classmethod
    def sizes(cls, tensors: Tensors) -> tuple[list[int] | None, list[int] | None]:
        whole = tensors.get("whole")
        if whole is None:
            return None, [len(tensors["whole_bias"])]
        return Difference.sizes({"diff": whole})

    @classmethod
    def fits(cls, tensors: Tensors, sizes: tuple[int, ...]) -> bool:
        whole, bias = tensors.get("whole"), tensors.get("whole_bias")
        is_whole = whole is None or Difference.fits({"diff": whole}, sizes)
        return is_whole and (bias is None or tuple(bias.shape) == sizes[:1])


def difference(whole: Tensor, base: Tensor | None) -> Tensor:
    """Returns the difference of a stored tensor from that of the base, in float32."""
    if base is None or base.is_meta:
        return whole.float()
    return whole.float().to(base.device) - base.detach().float()


def relative(tensors: Tensors, seat: Seat) -> dict[str, Tensor]:
    """Returns the weights of a method beside which a file stores tensors of the base layer.

    A bias becomes a change of the bias. A copy of the weight is left out.

    Raises:
        ValueError: The copy of the weight differs from the weight of the layer.
    """
    layer: Any = seat.layer
    rest = {role: part for role, part in tensors.items() if role not in Replacement.marks}
    whole, bias = tensors.get("whole"), tensors.get("whole_bias")
    if whole is not None and not layer.weight.is_meta:
        weight = layer.weight.detach().float()
        if whole.shape != weight.shape or not torch.allclose(
            whole.float().to(weight.device),
            weight,
            rtol=_NEAR,
            atol=_NEAR * float(weight.abs().mean()),
        ):
            raise ValueError("is beside a copy of the layer's weight that differs from the layer")
    if bias is not None:
        rest["diff_b"] = difference(bias, getattr(layer, "bias", None))
    return rest


def _is_norm(seat: Seat) -> bool:
    return not seat.is_a(nn.Linear, nn.Conv2d, nn.Embedding)
