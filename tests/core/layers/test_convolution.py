"""Convolutions of small feature maps as matrix products, with the same results."""

from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from refiners_core.layers.convolution import Convolution


class Called(TorchDispatchMode):
    """Records the names of the called operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def way(layer: nn.Module, x: torch.Tensor) -> str:
    with Called() as called, torch.no_grad():
        layer(x)
    return "convolution" if "aten::convolution" in called.names else "product"


def exact(layer: Convolution, x: torch.Tensor) -> torch.Tensor:
    return nn.Conv2d.forward(deepcopy(layer).double(), x.double())


@pytest.mark.parametrize("has_grad", [True, False])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    ("stride", "padding", "size"),
    [(1, 1, (4, 6)), (2, 1, (5, 8)), (2, 0, (5, 7)), (1, 1, (1, 1)), (1, 0, (3, 4))],
)
def test_a_small_map_is_convolved_as_by_torch(stride, padding, size, rows, has_grad, differ):
    layer = Convolution(640, 320, stride, padding)
    x = torch.randn(rows, 640, *size)
    expected = exact(layer, x)
    with nullcontext() if has_grad else torch.no_grad():
        y = layer(x)
    assert way(layer, x) == "product"
    assert y.shape == expected.shape
    assert y.is_contiguous()
    assert differ(y, expected) < 3e-6


def test_a_small_map_sends_the_same_gradients_back(differ):
    layer = Convolution(512, 512)
    x = torch.randn(2, 512, 4, 4, requires_grad=True)
    wanted = [x, layer.weight, layer.bias]
    noise = torch.randn(2, 512, 4, 4)
    gradients = torch.autograd.grad(layer(x), wanted, noise)
    expected = torch.autograd.grad(nn.Conv2d.forward(layer, x), wanted, noise)
    assert all(differ(a, b) < 1e-5 for a, b in zip(gradients, expected, strict=True))


def test_positions_are_few_beside_filters_or_not():
    layer = Convolution(512, 512)
    assert way(layer, torch.randn(1, 512, 16, 16)) == "product"
    assert way(layer, torch.randn(2, 512, 16, 16)) == "convolution"
    assert way(Convolution(256, 256), torch.randn(1, 256, 2, 2)) == "convolution"
    half = Convolution(512, 512).to(torch.bfloat16)
    assert way(half, torch.randn(1, 512, 2, 2, dtype=torch.bfloat16)) == "convolution"


def test_a_map_without_rows_stays_one():
    assert Convolution(512, 512)(torch.randn(0, 512, 4, 4)).shape == (0, 512, 4, 4)


def test_wrong_channels_raise_the_error_of_torch():
    with pytest.raises(RuntimeError, match=r"expected input.* to have 512 channels, but got 7"):
        Convolution(512, 512)(torch.randn(1, 7, 4, 4))


def test_a_layer_without_bias_adds_none(differ):
    layer = Convolution(512, 512)
    layer.bias = None
    x = torch.randn(1, 512, 4, 4)
    assert way(layer, x) == "product"
    assert differ(layer(x), exact(layer, x)) < 3e-6


@pytest.mark.parametrize("is_strict", [True, False])
def test_an_exported_program_has_the_plain_convolution(is_strict):
    program = torch.export.export(
        Convolution(512, 512), (torch.randn(1, 512, 4, 4),), strict=is_strict
    )
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert names == ["aten.conv2d.default"]


def test_a_compiled_program_has_the_plain_convolution():
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: object):
        graphs.append(graph)
        return graph.forward

    torch.compile(Convolution(512, 512), backend=keep, fullgraph=True)(torch.randn(1, 512, 4, 4))
    names = [
        str(node.target)
        for graph in graphs
        for node in graph.graph.nodes
        if node.op == "call_function"
    ]
    assert names == [str(torch.conv2d)]
