"""Adapters abreast: several wraps of one seat that read the same, in place of one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor, nn

from refiners_core.errors import PlanError
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

_OUTPUT: Final = "abreast.output"
"""The context key of the output of the layer that is wrapped. Layers inside it have run when it is
written, so all seats share the key, and compiled blocks a function."""


class Given(Layer):
    """Returns the output of the layer that adapters wrap abreast, in place of that layer."""

    def run(self, context: Context, *inputs: Any) -> Any:
        return context[_OUTPUT]


class Abreast(Chain):
    """Adds to the output of a layer what each of several wraps changes: `y + sum w_i (f_i - y)`.

    Args:
        inner: The layer.
        lanes: The wraps by name. Those that only read the output of the layer have a `Given` in its
            place, so that it runs once.
        weights: The factor of each wrap.
    """

    def __init__(
        self, inner: nn.Module, lanes: Mapping[str, nn.Module], weights: Sequence[float]
    ) -> None:
        super().__init__(inner=inner, **lanes)
        self.weights: Final = tuple(weights)

    def run(self, context: Context, *inputs: Any) -> Any:
        inner, *lanes = self
        output: Any = self.call(inner, context, *inputs)
        total = output
        for lane, weight in zip(lanes, self.weights, strict=True):
            context[_OUTPUT] = output
            change = self.call(lane, context, *inputs)
            if not isinstance(output, Tensor) or not isinstance(change, Tensor):
                raise PlanError(
                    f"adapters abreast change tensors, not {type(output).__name__} values.",
                    hint="Wear one after the other: compose.stack(first, second).",
                )
            total = total + (change - output) * weight
        return total

    def extra_repr(self) -> str:
        return ", ".join(f"{weight:g}" for weight in self.weights)
