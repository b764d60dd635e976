"""Trees compile to one graph and export, bare and worn."""

from typing import Any

import pytest
import torch
from torch import nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Context,
    Distribute,
    Lambda,
    Multiply,
    Parallel,
    Passthrough,
    Residual,
    Scope,
    SetContext,
    Sum,
    UseContext,
    When,
    select,
)

from ..trees import add, bits, worn_state


class Branch(Adapter):
    """A scaled linear beside each linear, and a note before the scope."""

    def edits(self, model: Chain):
        def beside(inner: nn.Module, seat: Any) -> nn.Module:
            layer = self.layer(seat, lambda: nn.Linear(4, 4))
            return Sum(inner, When(self.scale_key, layer, Multiply(self.scale_key)))

        linears = select(model).of(nn.Linear).where(lambda seat: seat.layer.in_features == 4)
        scopes = select(model).of(Scope)
        return linears.wrap(beside, name="branch") + scopes.before(
            "note", lambda _: SetContext("n")
        )


@pytest.fixture
def tree() -> Chain:
    torch.manual_seed(0)
    return Chain(
        time=Passthrough(UseContext("timestep"), nn.Linear(4, 4), SetContext("time")),
        block=Residual(nn.Linear(4, 4), Sum(nn.SiLU(), UseContext("time"))),
        both=Parallel(nn.Identity(), nn.Linear(4, 4)),
        each=Distribute(nn.Identity(), nn.SiLU()),
        add=Lambda(add),
        scope=Scope(UseContext("text"), SetContext("kept"), rebind={"text": "other"}),
        join=Concatenate(nn.Identity(), nn.Linear(4, 4)),
        out=nn.Linear(8, 4),
    ).eval()


x = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))


def values(scale: float | None = None) -> dict[str, Any]:
    given = {"timestep": x * 2, "other": x * 3, "text": x}
    return given if scale is None else {**given, "lora.scale": torch.tensor(scale)}


class Counted:
    """A backend of torch.compile that counts its graphs."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs += 1
        return graph


def test_a_tree_compiles_to_one_graph_bare_and_worn(tree):
    counted = Counted()
    compiled = torch.compile(tree, backend=counted, fullgraph=True)
    adapter = Branch(key="lora")
    for worn in (False, True):
        if worn:
            adapter.inject(tree)
        for scale in (None, 0.5, 2.0):
            given = values(scale)
            assert bits(compiled(x, context=given)) == bits(tree(x, context=given))
    assert counted.graphs == 4  # bare and worn, each without and with a scale in its context


def test_eject_and_inject_again_make_no_new_graph(tree):
    counted = Counted()
    compiled = torch.compile(tree, backend=counted, fullgraph=True)
    adapter = Branch(key="lora")
    for is_worn in (False, True):
        if is_worn:
            adapter.inject(tree)
        compiled(x, context=values(1.0))
    graphs = counted.graphs
    adapter.eject()
    assert bits(compiled(x, context=values(1.0))) == bits(tree(x, context=values(1.0)))
    adapter.inject(tree)
    assert bits(compiled(x, context=values(1.0))) == bits(tree(x, context=values(1.0)))
    assert counted.graphs == graphs


def test_a_context_is_written_by_a_compiled_tree_as_by_any_other(tree):
    Counted()
    compiled = torch.compile(tree, backend="eager", fullgraph=True)
    ours, theirs = Context(values()), Context(values())
    compiled(x, context=ours)
    tree(x, context=theirs)
    assert sorted(ours.keys()) == sorted(theirs.keys())
    assert bits(ours["time"]) == bits(theirs["time"])
    assert "kept" not in ours


def test_gradients_flow_through_a_compiled_tree(tree):
    Counted()
    compiled = torch.compile(tree, backend="aot_eager", fullgraph=True)
    Branch(key="lora").inject(tree)
    grads = []
    for call in (tree, compiled):
        tree.zero_grad()
        call(x, context=values(0.5)).square().sum().backward()
        grads.append([bits(weight.grad) for weight in tree.parameters() if weight.grad is not None])
    assert grads[0] == grads[1]


@pytest.mark.parametrize("is_strict", [True, False])
@pytest.mark.parametrize("is_worn", [True, False])
def test_a_tree_is_exported_with_its_context(tree, is_strict, is_worn):
    torch.compiler.reset()
    if is_worn:
        Branch(key="lora").inject(tree)
    given = {"context": values(0.5)}
    program = torch.export.export(tree, (x,), kwargs=given, strict=is_strict)
    assert bits(program.module()(x, **given)) == bits(tree(x, **given))
    other = {"context": {key: value * 2 for key, value in values(0.5).items()}}
    assert bits(program.module()(x + 1, **other)) == bits(tree(x + 1, **other))


@pytest.mark.parametrize("is_strict", [True, False])
def test_a_tree_wears_after_an_export_what_it_wore_before(tree, is_strict):
    torch.compiler.reset()
    mapping, adapter = tree._modules, Branch(key="lora").inject(tree)
    worn = worn_state(tree)
    torch.export.export(tree, (x,), kwargs={"context": values(0.5)}, strict=is_strict)
    assert worn_state(tree) == worn
    adapter.eject()
    assert tree._modules is mapping
