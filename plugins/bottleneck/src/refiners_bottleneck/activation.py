"""The activations of bottlenecks, by the names that AdapterHub's configurations have."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from refiners_core import Lambda


def quick_gelu(x: Tensor) -> Tensor:
    """Returns `x sigmoid(1.702 x)` (arXiv:1606.08415, section 2)."""
    return x * torch.sigmoid(1.702 * x)


def squared_relu(x: Tensor) -> Tensor:
    """Returns `relu(x)^2` (arXiv:2109.08668, section 3)."""
    return functional.relu(x).square()


def clipped_gelu(x: Tensor) -> Tensor:
    """Returns `gelu(x)` within -10...10 (arXiv:2004.09602, section 4)."""
    return functional.gelu(x).clamp(-10, 10)


def laplace(x: Tensor) -> Tensor:
    """Returns the distribution function of a normal distribution whose mean is `sqrt(1/2)` and
    whose deviation is `sqrt(1 / (4 pi))` (arXiv:2209.10655, equation 10)."""
    return 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2))))


def _tanh_gelu() -> nn.Module:
    return nn.GELU(approximate="tanh")


ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "gelu": nn.GELU,
    "gelu_python": nn.GELU,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_accurate": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "gelu_python_tanh": _tanh_gelu,
    "gelu_10": lambda: Lambda(clipped_gelu),
    "laplace": lambda: Lambda(laplace),
    "leaky_relu": nn.LeakyReLU,
    "leakyrelu": nn.LeakyReLU,
    "linear": nn.Identity,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "quick_gelu": lambda: Lambda(quick_gelu),
    "relu": nn.ReLU,
    "relu2": lambda: Lambda(squared_relu),
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""The builder of each activation; names are in lower case."""

OLD_NAMES: Final[Mapping[str, Any]] = {"gelu": "gelu_new", "gelu_orig": "gelu"}
"""The present names of activations in folders that state no version."""
