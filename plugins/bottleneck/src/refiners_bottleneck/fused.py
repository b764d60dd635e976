"""The attention over the outputs of bottlenecks (arXiv:2005.00247, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_bottleneck.change import joined
from refiners_core import Chain, Context, Parallel
from refiners_core.errors import WeightsError

_TRAINING: Final = ("regularization", "value_initialized", "dropout_prob")
"""Fields that do not change what a trained fusion computes."""


@dataclass(frozen=True)
class FusionConfig:
    """The form of a fusion; fields have AdapterHub's names and the defaults of `dynamic`."""

    key: bool = True
    """Whether a matrix projects the outputs of adapters to keys."""
    query: bool = True
    """Whether a matrix projects features to queries."""
    value: bool = True
    """Whether a matrix projects the outputs of adapters to values."""
    query_before_ln: bool = False
    """Whether the query is the output of the layer, without its residual."""
    residual_before: bool = False
    """Whether the residual is part of each value, and so of each key."""
    value_before_softmax: bool = True
    """Whether values are projected before they are averaged, not after."""

    @classmethod
    def named(cls, name: str) -> Self:
        """Returns `dynamic`, or `static` without values.

        Raises:
            WeightsError: The name is another one.
        """
        if name not in ("dynamic", "static"):
            raise WeightsError(
                f"{name!r} is not a fusion.", hint='Try config="dynamic" or config="static".'
            )
        return cls(value=name == "dynamic")

    @classmethod
    def from_json(cls, data: Any, origin: str) -> Self:
        """Reads a published configuration.

        Args:
            data: The fields, or a name.
            origin: The file, for messages.

        Raises:
            WeightsError: A field has an unknown name or value, or is not followed.
        """
        if isinstance(data, str):
            return cls.named(data)
        known = {field.name for field in fields(cls)}
        values: dict[str, bool] = {}
        for name, value in dict(data or {}).items():
            if name in known and isinstance(value, bool):
                values[name] = value
            elif name == "temperature" and not value:
                continue
            elif name not in _TRAINING:
                raise WeightsError(
                    f"{origin} has {name} = {value!r}, which is not followed"
                    + (": the temperature falls with each call." if name == "temperature" else "."),
                    hint="Give a fusion that was trained without it.",
                )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as AdapterHub writes them."""
        training = {"regularization": self.value, "value_initialized": self.value}
        return {**asdict(self), **training, "temperature": False, "dropout_prob": None}

    def shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the tensors by name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name in ("query", "key", "value"):
            if getattr(self, name):
                shapes[f"{name}.weight"] = (width, width)
                shapes |= {} if name == "value" else {f"{name}.bias": (width,)}
        return shapes or {"dense.weight": (1, width), "dense.bias": (1,)}

    def begin(self, width: int) -> dict[str, nn.Parameter]:
        """Returns the tensors of an untrained fusion, which averages the adapters nearly alike."""
        return {
            name: nn.Parameter(
                torch.eye(width)
                if name == "value.weight"
                else torch.zeros(shape)
                if name.endswith("bias")
                else torch.randn(shape) * 0.02
            )
            for name, shape in self.shapes(width).items()
        }

    def build(self, width: int, tensors: Mapping[str, nn.Parameter]) -> FusionAttention:
        """Builds the attention of a place."""
        attention = FusionAttention(self, width)
        for name, value in tensors.items():
            leaf, _, attribute = name.partition(".")
            attention.get_submodule(leaf).register_parameter(attribute, value)
        return attention


class FusionAttention(nn.Module):
    """Attends, at each token, from its features to the outputs of adapters.

    Args:
        config: The form of the fusion.
        width: The features of a token.
    """

    def __init__(self, config: FusionConfig, width: int) -> None:
        super().__init__()
        self.config: Final = config
        for name in {key.partition(".")[0] for key in config.shapes(width)}:
            sizes = (width, 1 if name == "dense" else width)
            self.add_module(name, nn.Linear(*sizes, bias=name != "value", device="meta"))

    def forward(
        self,
        query: Float[Tensor, "rows tokens width"],
        outputs: Float[Tensor, "rows tokens adapters width"],
        residual: Float[Tensor, "rows tokens width"],
    ) -> Float[Tensor, "rows tokens width"]:
        """Returns the attended outputs; the residual is a part of them if the form says so."""
        if self.config.residual_before:
            outputs = outputs + residual[:, :, None]
        q, k = self._projected("query", query), self._projected("key", outputs)
        v = self._projected("value", outputs) if self.config.value_before_softmax else outputs
        weights = (q[:, :, None] @ k.mT).softmax(dim=-1)
        y = (weights @ v)[:, :, 0]
        if not self.config.value_before_softmax:
            y = self._projected("value", y)
        return y

    def _projected(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x) if getattr(self.config, name) else x


class Fused(Chain):
    """Returns the change of a layer by fused bottlenecks, from the output `h` of the layer.

    Args:
        read: Takes `h` and returns what the bottlenecks read.
        bottlenecks: The bottlenecks.
        attention: The attention over their outputs.
        is_parallel: Whether the bottlenecks read what the layer starts from, `x`.
        residual: The residual of the bottlenecks: `output` for `h`, `input` for what they read,
            `sum` for `h + x`.
        replaces: Whether the adapters take the place of the residual of the layer.
        stream: The context key of `x`.
    """

    def __init__(
        self,
        read: nn.Module,
        bottlenecks: Parallel,
        attention: FusionAttention,
        *,
        is_parallel: bool,
        residual: str,
        replaces: bool,
        stream: str,
    ) -> None:
        super().__init__(read=read, bottlenecks=bottlenecks, attention=attention)
        self.is_parallel: Final = is_parallel
        self.residual: Final = residual
        self.kept: Final = (
            ("output" if attention.config.residual_before else "sum")
            if is_parallel
            else ("none" if attention.config.residual_before else residual)
        )
        self.replaces: Final = replaces
        self.stream: Final = stream

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens width"]:
        h: Tensor = inputs[0]
        read, bottlenecks, attention = self
        z: Tensor = self.call(read, context, h)
        outputs = torch.stack(self.call(bottlenecks, context, z), dim=2)
        before = attention.config.query_before_ln and not self.is_parallel  # pyright: ignore
        if self.residual == "sum":
            residual = h + context[self.stream]
        else:
            residual = z if self.is_parallel else {"output": h, "input": z}[self.residual]
        y: Tensor = self.call(attention, context, h if before else z, outputs, residual)
        return joined(y, self.kept, h, z, context, self.stream, self.replaces)
