"""LN tuning: norms that replace those of the model."""

import copy
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Final

from torch import Tensor, nn

from refiners_core import Chain, Context, Edit, Seat
from refiners_peft.change import LayerChanges, Target, check_length
from refiners_peft.peft_file import PeftFile


class NormTuning(LayerChanges):
    """Replaces norms by trained ones (arXiv:2312.11420, section 3).

    At a scale between 0 and 1 the outputs of both are mixed. Several add up.

    Args:
        options: The arguments of every adapter: `weights`, `name`, `key`.
    """

    method: ClassVar[str] = "LN_TUNING"
    slots: ClassVar[tuple[str, ...]] = ("decoder.norm",)
    roles: ClassVar[tuple[str, ...]] = ("weight",)
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?P<layer>.+)\.ln_tuning_layers(\.[^.]+)?\.(?P<role>weight|bias)"
    )

    def changes(self, file: PeftFile, layers: Mapping[Target, Mapping[str, Tensor]]) -> None:
        """Builds the trained norm of each place."""
        for target, tensors in layers.items():
            for role, tensor in tensors.items():
                check_length(file, target, role, tensor, target.outputs)
            for seat, _ in target.shares:
                if odd := [role for role in tensors if seat.layer._parameters.get(role) is None]:
                    raise file.odd(f"{target.name}.{odd[0]}")
                self.layer(seat, partial(_trained, seat.layer, tensors))

    def edits(self, model: Any) -> Iterable[Edit]:
        """Mixes the outputs of each norm and of the trained one."""

        def mixed(inner: nn.Module, seat: Seat) -> nn.Module:
            return Mixed(inner, self.layer(seat, self.missing), Base(seat.layer), self.scale_key)

        return self.wrapped(model, mixed, name="norm")

    def merged(self, change: Any, base: nn.Module) -> Mapping[str, Tensor]:
        parameters: Any = base._parameters
        return {
            name: parameter.detach().float() - parameters[name].detach().float()
            for name, parameter in change.named_parameters()
        }

    def stored(self, change: Any) -> Mapping[str, Tensor]:
        return {f"ln_tuning_layers.{name}": part for name, part in change.named_parameters()}


class Base:
    """Holds a base layer without being its parent.

    Args:
        layer: The base layer.
    """

    __slots__ = ("layer",)

    def __init__(self, layer: nn.Module) -> None:
        self.layer: Any = layer


class Mixed(Chain):
    """Adds the difference between a trained norm and the one that it replaces.

    Args:
        inner: The norm, with the edits of other adapters.
        trained: The trained norm.
        base: The base norm.
        scale: The context key of the scale; without a value the norm runs alone.
    """

    def __init__(self, inner: nn.Module, trained: nn.Module, base: Base, scale: str) -> None:
        self.scale: Final = scale
        self.base: Final = base
        super().__init__(inner=inner, trained=trained)

    def run(self, context: Context, *inputs: Any) -> Any:
        inner, trained = self
        output = self.call(inner, context, *inputs)
        scale = context.get(self.scale)
        if scale is None:
            return output
        base = output if inner is self.base.layer else self.base.layer(*inputs)
        return output + scale * (self.call(trained, context, *inputs) - base)

    def extra_repr(self) -> str:
        return repr(self.scale)


def _trained(base: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Returns a norm of the same kind with trained weights."""
    norm = copy.deepcopy(base)
    for name, tensor in tensors.items():
        norm._parameters[name] = nn.Parameter(tensor.clone())
    return norm
