"""The change of the output of a layer by a bottleneck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_bottleneck.config import BottleneckConfig
from refiners_core import Chain, Context, Identity, Layer, UseContext
from refiners_core.models.decoder import TOKEN_MASK


class Scaling(nn.Module):
    """Multiplies features by a number, or by learned numbers.

    Args:
        factor: The number.
        learned: In its place: one number, or one for each feature.
    """

    def __init__(self, factor: float, learned: nn.Parameter | None = None) -> None:
        super().__init__()
        self.factor: Final = factor
        self.scaling = learned

    def forward(self, x: Float[Tensor, "*any width"]) -> Float[Tensor, "*any width"]:
        """Returns the scaled features."""
        return x * (self.factor if self.scaling is None else self.scaling)

    def extra_repr(self) -> str:
        return f"{self.factor:g}" if self.scaling is None else str(len(self.scaling))


class Gated(Chain):
    """Multiplies what a network adds by a learned gate in 0...1 (UniPELT, arXiv:2110.07577).

    The gate is the mean over the tokens of a call, padding left out. In a generation these are all
    tokens of the prompt, then each new token alone.

    Args:
        network: The network.
        gate: Takes features (rows, tokens, width) and returns (rows, tokens, 1).
    """

    def __init__(self, network: nn.Module, gate: nn.Module) -> None:
        super().__init__(network=network, gate=gate)

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens width"]:
        network, gate = self
        openness = torch.sigmoid(self.call(gate, context, *inputs))
        mask: Tensor | None = context.get(TOKEN_MASK)
        if mask is None:
            mean = openness.mean(dim=1, keepdim=True)
        else:
            real = mask[:, -openness.shape[1] :, None].to(openness.dtype)
            mean = (openness * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)
        return self.call(network, context, *inputs) * mean


class Rejoined(Chain):
    """Returns the change of an adapter whose residual is not the output of the layer.

    Takes the output `h` of a layer; `x` is what the layer starts from.

    Args:
        read: Takes `h` and returns what the bottleneck reads.
        network: The bottleneck.
        norm: The normalisation after it, if there is one.
        residual: The residual of the bottleneck: `output` for `h`, `input` for what it reads,
            `sum` for `h + x`.
        is_before: Whether the residual is added before `norm`.
        replaces: Whether the adapter takes the place of the residual of the layer, so that `x` is
            not added once more.
        stream: The context key of `x`.
    """

    def __init__(
        self,
        read: nn.Module,
        network: nn.Module,
        norm: nn.Module,
        *,
        residual: str,
        is_before: bool,
        replaces: bool,
        stream: str,
    ) -> None:
        super().__init__(read=read, network=network, norm=norm)
        self.residual: Final = residual
        self.is_before: Final = is_before
        self.replaces: Final = replaces
        self.stream: Final = stream

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens width"]:
        h: Tensor = inputs[0]
        read, network, norm = self
        z: Tensor = self.call(read, context, h)
        y: Tensor = self.call(network, context, z)
        if not self.is_before:
            y = self.call(norm, context, y)
            return joined(y, self.residual, h, z, context, self.stream, self.replaces)
        residual = h + context[self.stream] if self.residual == "sum" else z
        y = self.call(norm, context, y + (h if self.residual == "output" else residual))
        return joined(y, "none", h, z, context, self.stream, self.replaces)

    def extra_repr(self) -> str:
        return f"residual={self.residual!r}"


def joined(
    y: Tensor, residual: str, h: Tensor, z: Tensor, context: Context, stream: str, replaces: bool
) -> Tensor:
    """Returns `y` and a residual less the output of a layer, where nothing cancels.

    Args:
        y: The output of a bottleneck.
        residual: `output` for `h`, `input` for `z`, `sum` for `h + x`, or `none`.
        h: The output of the layer.
        z: What the bottleneck reads.
        context: The context, which has `x`, what the layer starts from.
        stream: The context key of `x`.
        replaces: Whether `x` is taken off as well.
    """
    if residual == "sum":
        return y if replaces else y + context[stream]
    if residual == "input":
        y = y + (z - h)
    elif residual == "none":
        y = y - h
    return y - context[stream] if replaces else y


class Stream(Layer):
    """Adds what a layer starts from to its output.

    Args:
        key: The context key of what the layer starts from.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key: Final = key

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows tokens width"]:
        h: Tensor = inputs[0]
        return h + context[self.key]

    def extra_repr(self) -> str:
        return repr(self.key)


def change(
    config: BottleneckConfig,
    leaves: Mapping[str, nn.Module],
    stream: str,
    norm: nn.Module | None,
) -> Chain:
    """Returns the layer that takes the output of a layer and returns what is added to it.

    With `x` for what the layer starts from and `h` for its output, the layer returns `x + h`
    without an adapter. With `A` for the bottleneck, it returns `x + h + A(x + h)` for `seq_bn`,
    `x + h + A(h)` for `double_seq_bn` and `x + h + 4 A(x)` for `par_bn`.

    Args:
        config: The configuration.
        leaves: The layers with weights: `down` and `up`, and where the configuration has them
            `act`, `norm_before`, `norm_after`, `scale` and `gate`.
        stream: The context key of `x`.
        norm: The normalisation of `x + h` of families that normalise outputs.
    """
    read = read_of(config, stream, norm)
    network = network_of(leaves)
    if "gate" in leaves:
        network = {"gated": Gated(Chain(**network), leaves["gate"])}
    after = {"norm_after": leaves["norm_after"]} if config.ln_after else {}
    residual = residual_of(config, norm)
    is_before = config.ln_after and config.adapter_residual_before_ln and not config.is_parallel
    replaces = not config.original_ln_after
    if not is_before and (residual, replaces) in (("output", False), ("sum", True)):
        return Chain(**read, **network, **after)
    return Rejoined(
        read.get("read", Identity()),
        Chain(**network),
        leaves.get("norm_after", Identity()),
        residual=residual,
        is_before=is_before,
        replaces=replaces,
        stream=stream,
    )


def read_of(config: BottleneckConfig, stream: str, norm: nn.Module | None) -> dict[str, nn.Module]:
    """Returns the layer that turns the output of a layer into what a bottleneck reads, by name;
    empty if it reads the output itself."""
    if config.is_parallel:
        return {"read": UseContext(stream)}
    if not config.original_ln_before:
        return {}
    added = Stream(stream)
    return {"read": added if norm is None else Chain(add=added, norm=norm)}


def network_of(leaves: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Returns the layers from the input of a bottleneck to its scaled output, by name."""
    names = ("norm_before", "down", "act", "up", "scale")
    return {name: leaves[name] for name in names if name in leaves}


def reads_stream(config: BottleneckConfig) -> bool:
    """Whether a bottleneck reads what its layer starts from."""
    return config.is_parallel or config.original_ln_before or not config.original_ln_after


def residual_of(config: BottleneckConfig, norm: nn.Module | None) -> str:
    """Returns which features are the residual of a bottleneck: `output`, `input` or `sum`."""
    if config.is_parallel or config.residual_before_ln is True or not config.original_ln_before:
        return "output"
    if config.residual_before_ln == "post_add" or norm is None:
        return "sum"
    return "input"
