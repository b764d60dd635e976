"""Hooks and patches of other libraries work on every layer as on any `nn.Module`."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from refiners_core import Chain, Parallel, Residual, Scope, Sum

from ..trees import EditSpec, RandomAdapter

PLACES = ("", "residual", "residual.leaf", "sum", "sum.scope", "sum.scope.leaf")


def tree_of() -> Chain:
    torch.manual_seed(0)
    return Chain(
        residual=Residual(leaf=nn.Linear(4, 4)),
        sum=Sum(scope=Scope(leaf=nn.Linear(4, 4)), other=nn.SiLU()),
    )


def at(tree: Chain, path: str) -> nn.Module:
    return tree.layer(path) if path else tree


x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("path", PLACES)
def test_forward_hooks_see_and_change_inputs_and_outputs(path):
    tree = tree_of()
    plain = tree(x)
    layer = at(tree, path)
    pre = layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1, *inputs[1:]))
    post = layer.register_forward_hook(lambda layer, inputs, output: output * 2)
    assert not torch.equal(tree(x), plain)
    pre.remove()
    post.remove()
    assert torch.equal(tree(x), plain)


@pytest.mark.parametrize("path", PLACES)
def test_hooks_with_keywords_see_the_context_of_a_layer(path):
    tree, seen = tree_of(), []
    layer = at(tree, path)
    layer.register_forward_hook(lambda *all: seen.append(all[2]), with_kwargs=True)
    tree(x, context={"key": 1})
    assert len(seen) == 1
    assert ("context" in seen[0]) == isinstance(layer, Chain)


@pytest.mark.parametrize("path", PLACES)
def test_backward_hooks_see_gradients(path):
    tree, seen = tree_of(), []
    layer = at(tree, path)
    layer.register_full_backward_hook(lambda layer, into, out: seen.append(out[0].shape))
    layer.register_full_backward_pre_hook(lambda layer, out: seen.append(out[0].shape))
    tree(x.clone().requires_grad_()).sum().backward()
    assert seen == [(2, 4), (2, 4)]


@pytest.mark.parametrize(
    "register",
    [
        torch_module.register_module_forward_hook,
        torch_module.register_module_forward_pre_hook,
        torch_module.register_module_full_backward_hook,
        torch_module.register_module_full_backward_pre_hook,
    ],
)
def test_global_hooks_see_every_layer(register: Callable[[Any], Any]):
    tree, seen = tree_of(), set[nn.Module]()
    handle = register(lambda layer, *_: seen.add(layer))
    try:
        tree(x.clone().requires_grad_()).sum().backward()
    finally:
        handle.remove()
    assert seen == set(tree.modules())


def test_always_called_hooks_run_when_a_layer_fails():
    tree, seen = Chain(nn.Linear(5, 5)), []
    tree[0].register_forward_hook(lambda *_: seen.append(1), always_call=True)
    with pytest.raises(RuntimeError):
        tree(x)
    assert seen == [1]


@pytest.mark.parametrize("path", PLACES)
def test_a_forward_that_is_put_on_an_instance_is_called(path):
    tree = tree_of()
    plain, layer, calls = tree(x), at(tree, path), []
    old = layer.forward

    @functools.wraps(old)
    def forward(*inputs: Any, **named: Any) -> Any:
        calls.append(layer)
        return old(*inputs, **named)

    layer.forward = forward
    assert torch.equal(tree(x), plain)
    assert calls == [layer]
    del layer.forward
    tree(x)
    assert calls == [layer]


@pytest.mark.parametrize("path", [path for path in PLACES if not path.endswith("leaf")])
def test_a_compiled_layer_is_called_compiled(path):
    tree, compiled = tree_of(), []  # torch does not compile its own leaves alone
    plain = tree(x)

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        compiled.append(graph)
        return graph

    at(tree, path).compile(backend=backend, fullgraph=True)
    assert torch.equal(tree(x), plain)
    assert compiled


def test_weight_norm_and_lazy_layers_work_as_leaves():
    linear = nn.Linear(4, 4)
    tree = Chain(nn.LazyLinear(4), torch.nn.utils.parametrizations.weight_norm(linear))
    assert tree(x).shape == (2, 4)
    torch.testing.assert_close(tree[1](x), linear(x))


def test_autocast_and_gradients_reach_through():
    tree = tree_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tree.residual.leaf(x).dtype == torch.bfloat16
        assert tree(x).shape == (2, 4)
    tree(x).sum().backward()
    assert all(weight.grad is not None for weight in tree.parameters())


def test_gradient_checkpointing_gives_the_same_gradients():
    tree = tree_of()
    given = x.clone().requires_grad_()
    tree(given).sum().backward()
    plain = given.grad
    given.grad = None
    torch.utils.checkpoint.checkpoint(tree, given, use_reentrant=False).sum().backward()
    assert torch.equal(given.grad, plain)


def test_hooks_on_a_layer_fire_while_an_adapter_wraps_it():
    tree, seen = tree_of(), []
    tree.residual.leaf.register_forward_hook(lambda *_: seen.append("base"))
    adapter = RandomAdapter([EditSpec("wrap", 1)]).inject(tree)
    tree(x)
    adapter.eject()
    tree(x)
    assert seen == ["base", "base"]


def test_a_hook_in_a_tuple_flow_sees_every_input():
    tree = Chain(Parallel(nn.Identity(), nn.Identity()), Parallel(nn.Flatten()))
    seen: list[int] = []
    tree[1].register_forward_pre_hook(lambda layer, inputs: seen.append(len(inputs)) or inputs[0])
    tree(x)
    assert seen == [2]


@pytest.mark.parametrize("path", PLACES)
def test_parameters_and_buffers_are_registered_as_with_any_module(path):
    tree = tree_of()
    layer = at(tree, path)
    layer.register_parameter("gain", nn.Parameter(torch.ones(1)))
    layer.register_buffer("kept", torch.ones(1))
    layer.register_buffer("passing", torch.ones(1), persistent=False)
    prefix = f"{path}." if path else ""
    assert f"{prefix}gain" in dict(tree.named_parameters())
    assert f"{prefix}passing" in dict(tree.named_buffers())
    assert {f"{prefix}gain", f"{prefix}kept"} <= {*tree.state_dict()}
    assert f"{prefix}passing" not in tree.state_dict()


def test_a_chain_of_a_subclass_registers_a_buffer_at_construction():
    class Table(Chain):
        def __init__(self):
            super().__init__(nn.Identity())
            self.register_buffer("table", torch.arange(3))

    assert [*Table().state_dict()] == ["table"]
