"""The layers with weights of a bottleneck, and the names of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import nn

from refiners_bottleneck.activation import ACTIVATIONS
from refiners_bottleneck.change import Scaling
from refiners_bottleneck.config import BottleneckConfig
from refiners_bottleneck.phm import PhmLinear, phm_shapes, shared_name

LEAVES: Final = ("norm_before", "down", "act", "up", "scale", "norm_after", "gate")
"""The names of the layers, in order."""

Shapes = dict[tuple[str, str], tuple[int, ...]]
"""The shape of each tensor, by the name of its layer and its own."""


def shapes_of(config: BottleneckConfig, width: int, size: int) -> Shapes:
    """Returns the shapes of the tensors of a bottleneck.

    Args:
        config: The configuration.
        width: The width of the model.
        size: The width of the bottleneck.
    """
    shapes: Shapes = {}
    for leaf, inside, outside in (("down", width, size), ("up", size, width)):
        if config.phm_layer:
            tensors = phm_shapes(config, inside, outside)
        else:
            tensors: dict[str, tuple[int, ...]] = {"weight": (outside, inside), "bias": (outside,)}
        shapes |= {(leaf, name): shape for name, shape in tensors.items()}
    for leaf, is_there in (("norm_before", config.ln_before), ("norm_after", config.ln_after)):
        if is_there:
            shapes |= {(leaf, "weight"): (width,), (leaf, "bias"): (width,)}
    if config.non_linearity == "prelu":
        shapes["act", "weight"] = (1,)
    if isinstance(config.scaling, str):
        shapes["scale", "scaling"] = (1,) if config.scaling == "learned" else (width,)
    if config.use_gating:
        shapes |= {("gate", "weight"): (1, width), ("gate", "bias"): (1,)}
    return shapes


def published_name(config: BottleneckConfig, leaf: str, name: str) -> str:
    """Returns the published name of a tensor in its bottleneck."""
    first = int(config.ln_before)  # the normalisation is the first layer of `adapter_down`
    starts = {
        "down": f"adapter_down.{first}.",
        "act": f"adapter_down.{first + 1}.f.",
        "up": "adapter_up.",
        "norm_before": "adapter_norm_before.",
        "norm_after": "adapter_norm_after.",
        "gate": "gate.",
        "scale": "",
    }
    return f"{starts[leaf]}{name}"


def twins(config: BottleneckConfig) -> dict[str, str]:
    """Returns the second published names of tensors, each with the first: AdapterHub keeps the
    normalisation and the activation under two names."""
    pairs: dict[str, str] = {}
    if config.ln_before:
        for name in ("weight", "bias"):
            pairs[f"adapter_down.0.{name}"] = published_name(config, "norm_before", name)
    if config.non_linearity == "prelu":
        pairs["non_linearity.f.weight"] = published_name(config, "act", "weight")
    return pairs


def shared_by_all(config: BottleneckConfig, leaf: str, name: str) -> str | None:
    """Returns the name under which all bottlenecks share a tensor; None if they do not."""
    is_phm = config.phm_layer and leaf in ("down", "up")
    return shared_name(config, leaf, name) if is_phm else None


def build_leaves(
    config: BottleneckConfig,
    width: int,
    size: int,
    tensors: Mapping[tuple[str, str], nn.Parameter],
) -> dict[str, nn.Module]:
    """Builds the layers with weights of a bottleneck, and its activation.

    Args:
        config: The configuration.
        width: The width of the model.
        size: The width of the bottleneck.
        tensors: The parameters, as `shapes_of` lists them.
    """
    leaves: dict[str, nn.Module] = {"act": ACTIVATIONS[config.non_linearity]()}
    for leaf, inside, outside in (("down", width, size), ("up", size, width), ("gate", width, 1)):
        named = {name: value for (owner, name), value in tensors.items() if owner == leaf}
        if named and config.phm_layer and leaf != "gate":
            leaves[leaf] = PhmLinear(named, inside, outside)
        elif named:
            leaves[leaf] = nn.Linear(inside, outside, device="meta")
    for leaf in ("norm_before", "norm_after"):
        if (leaf, "weight") in tensors:
            leaves[leaf] = nn.LayerNorm(width, device="meta")
    if isinstance(config.scaling, str):
        leaves["scale"] = Scaling(1.0, tensors["scale", "scaling"])
    elif config.scaling != 1:
        leaves["scale"] = Scaling(config.scaling)
    for (leaf, name), value in tensors.items():
        leaves[leaf].register_parameter(name, value)
    return leaves


def leaves_in(layer: nn.Module) -> dict[str, nn.Module]:
    """Returns the layers with weights inside the layer of a bottleneck, by name."""
    named = ((path.rpartition(".")[2], part) for path, part in layer.named_modules())
    return {name: part for name, part in named if name in LEAVES}


def begin(shapes: Shapes) -> dict[tuple[str, str], nn.Parameter]:
    """Returns the tensors of an untrained bottleneck, which adds nothing yet."""
    return {pair: nn.Parameter(_begun(*pair, shape)) for pair, shape in shapes.items()}


def _begun(leaf: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    is_one = leaf.startswith("norm") and name == "weight"
    if is_one or leaf == "scale":
        return torch.ones(shape)
    if leaf == "act":
        return torch.full(shape, 0.25)
    adds_nothing = leaf == "up" and name in ("weight", "W", "W_right")
    if adds_nothing or name in ("bias", "b"):
        return torch.zeros(shape)
    return torch.randn(shape) * (0.5 if name.startswith("phm") else 0.02)
