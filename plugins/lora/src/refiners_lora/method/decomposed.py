"""DoRA: a direction and a magnitude (arXiv:2402.09353, section 4.1)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from refiners_core import Chain, Context
from refiners_lora.method.change import Change, Operation, Tensors, widened


class Decomposed(Chain, Change):
    """Gives the changed weight of a layer the magnitudes in the file: `m V / |V|`, `V = W + D`.

    W is the weight of the base layer itself, whatever other adapters do, so several add up. The
    strength multiplies D inside the norm, as in PEFT.

    Args:
        change: The change D of the weight.
        apply: The way in which the layer applies its weight.
        magnitude: A magnitude for each output or input feature.
        on_input: Whether it has one for each input feature; the norm is over all other axes.
        role: The published role of the magnitudes.
    """

    title = "a DoRA"
    needs_base: ClassVar = True
    is_linear = False

    def __init__(
        self, change: Change, apply: Operation, magnitude: Tensor, *, on_input: bool, role: str
    ) -> None:
        self.rank = change.rank
        self.alpha = change.alpha
        self.apply_weight: Final = apply
        self.on_input: Final = on_input
        self.magnitude_role: Final = role
        super().__init__(direction=change)
        self.magnitude = nn.Parameter(magnitude)

    @torch.no_grad()
    def begin(self, weight: Tensor) -> None:
        """Sets the magnitudes to the norms of a weight, with which an untrained DoRA changes
        nothing.

        Args:
            weight: The weight of the base layer.
        """
        axes = [axis for axis in range(weight.ndim) if axis != (1 if self.on_input else 0)]
        part = weight[:, : self.apply_weight.shape[1]].float()
        self.magnitude.copy_(part.square().sum(axes).sqrt().view_as(self.magnitude))

    def run(self, context: Context, *inputs: Any) -> Tensor:
        """Adds the parts for W and D, so that each picture may have a strength."""
        x, weight, _, strength = inputs
        apply, axis = self.apply_weight, 1 if len(self.apply_weight.shape) == 4 else -1
        weight = weight[:, : apply.shape[1]]
        if axis == 1:
            x = x[:, : apply.shape[1]]
        change = self._direction(weight).to(weight.device)
        row = strength.float().flatten() if isinstance(strength, Tensor) else strength
        gain = self._gain(weight.float(), change, row)
        gain = (
            gain.view(-1, gain.shape[-1], *(1 for _ in x.shape[2:]))
            if axis == 1
            else (gain.view(-1, *(1 for _ in x.shape[2:]), gain.shape[-1]))
        )
        gain = gain.to(x.dtype)
        change = change.to(x.dtype)
        if self.on_input:
            return apply(x * (gain - 1), weight) + apply(x * gain, change) * strength
        return apply(x, weight) * (gain - 1) + apply(x, change) * (gain * strength)

    def merged(self, weight: Tensor, bias: Tensor | None, strength: float) -> Mapping[str, Tensor]:
        whole = weight.float()
        part = whole[:, : self.apply_weight.shape[1]]
        change = self._direction(part)
        gain = self._gain(part, change, strength).flatten()
        gain = gain.view(*((1, -1) if self.on_input else (-1, 1)), *(1 for _ in part.shape[2:]))
        return {"weight": widened(gain * (part + strength * change) - part, whole)}

    def delta(self, weight: Tensor, bias: Tensor | None = None) -> Mapping[str, Tensor]:
        return self.merged(weight, bias, 1.0)

    def published(self) -> Mapping[str, Tensor]:
        return {**self.layer("direction", Change).published(), self.magnitude_role: self.magnitude}

    def _direction(self, weight: Tensor) -> Tensor:
        return self.layer("direction", Change).delta(weight.float())["weight"]

    def _gain(self, weight: Tensor, change: Tensor, strength: Tensor | float) -> Tensor:
        """Returns `m / |W + s D|`, (features,) or a row for each strength, in float32.

        The norm is expanded, `|W|^2 + 2 s W.D + s^2 |D|^2`, so that each row may have a strength.
        A feature of norm 0 stays 0.
        """
        axes = [axis for axis in range(weight.ndim) if axis != (1 if self.on_input else 0)]
        parts = (weight.square(), weight * change, change.square())
        base, mixed, update = (part.sum(axes) for part in parts)
        if isinstance(strength, Tensor) and strength.ndim:
            strength = strength.view(-1, 1)
        square = base + 2 * strength * mixed + strength * strength * update
        norm = square.clamp(min=0).sqrt()
        is_zero = norm < torch.finfo(torch.float32).eps
        gain = self.magnitude.float().flatten() / norm.masked_fill(is_zero, 1)
        return gain.masked_fill(is_zero, 0)


def is_on_input(tensors: Tensors, sizes: tuple[int, ...]) -> bool:
    """Whether magnitudes are for input features, by their stored shape.

    kohya's and LyCORIS' `dora_scale` is (out, 1, ...) or (1, in, ...). PEFT's vector is for
    outputs, though that of a convolution is (1, out, 1, 1).

    Raises:
        ValueError: The magnitudes are for neither the outputs nor the inputs.
    """
    role, magnitude = next((r, tensors[r]) for r in MAGNITUDES if r in tensors)
    count = magnitude.numel()
    is_row = role == "dora_scale" and magnitude.ndim > 1 and len(magnitude) == 1 and count > 1
    if is_row and count == sizes[1]:
        return True
    if count == sizes[0]:
        return False
    raise ValueError(f"{[*magnitude.shape]}")


MAGNITUDES: Final = ("dora_scale", "magnitude")
"""The roles of magnitudes."""
