"""Projections that are sums of Kronecker products (Compacter, arXiv:2106.04647)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_bottleneck.config import BottleneckConfig


class PhmLinear(nn.Module):
    """A linear layer of weight `sum_i A_i (x) B_i` (arXiv:2106.04647, equation 2).

    Its tensors have AdapterHub's names: `phm_rule`, or `phm_rule_left` and `phm_rule_right`, for
    the factors `A` of size (n, n, n); `W`, or `W_left` and `W_right`, for the factors `B` of size
    (n, in / n, out / n); and `b` for the bias.

    Args:
        tensors: The parameters by name.
        in_features: The number of inputs.
        out_features: The number of outputs.
    """

    def __init__(
        self, tensors: Mapping[str, nn.Parameter], in_features: int, out_features: int
    ) -> None:
        super().__init__()
        self.in_features: Final = in_features
        self.out_features: Final = out_features
        for name, tensor in tensors.items():
            self.register_parameter(name, tensor)

    def forward(self, x: Float[Tensor, "*any inputs"]) -> Float[Tensor, "*any outputs"]:
        """Returns the projected features."""
        weight = torch.einsum("nij,nkl->ikjl", self._factor("phm_rule"), self._factor("W"))
        x = x @ weight.reshape(self.in_features, self.out_features)
        bias = self._parameters.get("b")
        return x if bias is None else x + bias

    def _factor(self, name: str) -> Tensor:
        whole = self._parameters.get(name)
        if whole is not None:
            return whole
        left, right = self._parameters[f"{name}_left"], self._parameters[f"{name}_right"]
        assert left is not None, "a factor is whole, or has two parts"
        assert right is not None, "a factor is whole, or has two parts"
        return torch.bmm(left, right)

    def extra_repr(self) -> str:
        names = ", ".join(name for name, value in self._parameters.items() if value is not None)
        return f"{self.in_features}, {self.out_features}, {names}"


def phm_shapes(
    config: BottleneckConfig, in_features: int, out_features: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors of a projection by name."""
    n, rank = config.phm_dim, config.phm_rank
    inside, outside = in_features // n, out_features // n
    shapes: dict[str, tuple[int, ...]] = (
        {"phm_rule_left": (n, n, 1), "phm_rule_right": (n, 1, n)}
        if config.factorized_phm_rule
        else {"phm_rule": (n, n, n)}
    )
    shapes |= (
        {"W_left": (n, inside, rank), "W_right": (n, rank, outside)}
        if config.factorized_phm_W
        else {"W": (n, inside, outside)}
    )
    return shapes | ({"b": (out_features,)} if config.phm_bias else {})


def shared_name(config: BottleneckConfig, position: str, name: str) -> str | None:
    """Returns the name under which all layers share a tensor of a projection; None if they do not.

    Args:
        config: The configuration.
        position: `down` or `up`.
        name: The name of the tensor in the projection.
    """
    if name.startswith("phm_rule"):
        return name if config.shared_phm_rule else None
    if name.startswith("W"):
        return f"W_{position}{name.removeprefix('W')}" if config.shared_W_phm else None
    return None
