"""Combinators: the flow of values that their names describe."""

import pytest
import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Context,
    Distribute,
    Identity,
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
from refiners_core.errors import ContextError, TreeError


def double(x: Tensor) -> Tensor:
    return 2 * x


def nothing(*_: object) -> None:
    return None


x = torch.tensor([[1.0, 2.0]])


def test_sum_adds_the_outputs_of_its_children():
    assert torch.equal(Sum(Identity(), Lambda(double))(x), 3 * x)


def test_a_child_of_sum_that_returns_none_adds_nothing_and_changes_no_bit():
    assert Sum(Identity(), Lambda(nothing))(x) is x
    assert Sum(Lambda(nothing), Lambda(nothing))(x) is None


def test_residual_adds_its_input():
    assert torch.equal(Residual(Lambda(double), Lambda(double))(x), 5 * x)
    assert Residual(Lambda(nothing))(x) is x


def test_parallel_and_distribute_return_a_tuple():
    assert torch.equal(
        torch.stack(Parallel(Identity(), Lambda(double))(x)), torch.stack([x, 2 * x])
    )
    a, b = Distribute(Lambda(double), Identity())(x, 3 * x)
    assert torch.equal(a, 2 * x)
    assert torch.equal(b, 3 * x)


def test_distribute_says_how_many_inputs_it_needs():
    with pytest.raises(TreeError, match="Distribute has 2 children but got 1 inputs"):
        Distribute(Identity(), Identity())(x)


def test_concatenate_joins_along_a_dimension():
    assert Concatenate(Identity(), Lambda(double))(x).shape == (1, 4)
    assert Concatenate(Identity(), Lambda(double), dim=0)(x).shape == (2, 2)


def test_a_child_of_concatenate_that_returns_none_adds_nothing():
    assert torch.equal(Concatenate(Identity(), Lambda(nothing))(x), x)


def test_passthrough_runs_for_the_effect_on_the_context():
    context = Context()
    assert Passthrough(Lambda(double), SetContext("seen"))(x, context=context) is x
    assert torch.equal(context["seen"], 2 * x)
    assert Passthrough(SetContext("seen"))(x, x, context=context) == (x, x)
    assert context["seen"] == (x, x)


def test_when_runs_only_if_the_context_has_the_key():
    branch = Sum(Identity(), When("tokens", Lambda(double)))
    assert branch(x) is x
    assert branch(x, context={"tokens": None}) is x
    assert torch.equal(branch(x, context={"tokens": 1}), 3 * x)


def test_multiply_scales_by_a_value_of_the_context():
    assert torch.equal(Multiply("scale")(x, context={"scale": torch.tensor(0.5)}), x / 2)
    with pytest.raises(ContextError, match="'scale'"):
        Multiply("scale")(x)


def test_scope_keeps_writes_inside():
    context = Context({"seen": "outside"})
    tree = Chain(Scope(Lambda(double), SetContext("seen"), SetContext("new")), UseContext("seen"))
    assert tree(x, context=context) == "outside"
    assert "new" not in context


def test_scope_reads_values_from_outside_and_can_rebind_them():
    tree = Scope(UseContext("text"), rebind={"text": "identity"})
    context = Context({"text": "words", "identity": "face"})
    assert tree(x, context=context) == "face"
    assert context["text"] == "words"
    assert Scope(UseContext("text"))(x, context=context) == "words"
    swapped = Scope(Parallel(UseContext("a"), UseContext("b")), rebind={"a": "b", "b": "a"})
    assert swapped(x, context={"a": 1, "b": 2}) == (2, 1)


def test_scope_names_a_value_that_is_missing_outside():
    with pytest.raises(ContextError, match=r"'identity'.*it has text"):
        Scope(UseContext("text"), rebind={"text": "identity"})(x, context={"text": 1})


@pytest.mark.parametrize(
    "kind", [Sum, Parallel, Distribute, Residual, Passthrough, Scope, Concatenate]
)
def test_every_combinator_passes_the_context_on_and_honours_hooks(kind):
    tree = kind(Chain(UseContext("x"), leaf=Identity()))
    seen: list[object] = []
    tree[0].register_forward_hook(lambda layer, inputs, output: seen.append(output))
    tree[0].leaf.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    tree(torch.zeros_like(x), context={"x": x})
    assert [value is x for value in seen] == [True, True]


def test_a_new_combinator_defines_run_and_calls_its_children():
    class Twice(Chain):
        def run(self, context: Context, *inputs: Tensor) -> Tensor:
            once = self.call(self[0], context, *inputs)
            return self.call(self[0], context, once)

    assert torch.equal(Twice(Chain(Multiply("by")))(x, context={"by": 3}), 9 * x)


class ByName(Chain):
    """A combinator that calls its children by attribute."""

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        return self.call(self.first, context, *inputs) - self.call(self.last, context, *inputs)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("wrap", 12.0), ("replace", 12.0), ("remove", 0.0)],
)
def test_a_combinator_that_calls_children_by_attribute_runs_the_layers_of_adapters(kind, expected):
    class Ten(Adapter):
        def edits(self, model: Chain):
            place = select(model).named("first")
            if kind == "wrap":
                return place.wrap(lambda inner, seat: Chain(inner, Lambda(ten)))
            if kind == "replace":
                return place.replace(lambda seat: Lambda(thirteen))
            return place.remove()

    tree = Chain(ByName(first=Lambda(double), last=Identity()))
    x = torch.ones(1)
    assert float(tree(x)) == 1.0
    adapter = Ten().inject(tree)
    assert float(tree(x)) == expected
    assert tree[0].first is tree[0].layer("first")
    compiled = torch.compile(tree, backend="eager", fullgraph=kind != "remove")
    assert float(compiled(x)) == expected
    adapter.eject()
    assert float(tree(x)) == 1.0


def ten(x: Tensor) -> Tensor:
    return x + 11


def thirteen(x: Tensor) -> Tensor:
    return 13 * x


def test_at_returns_the_layer_that_adapters_made_of_a_child():
    tree = Chain(a=Identity(), b=Lambda(double))
    base = tree.a

    class Around(Adapter):
        def edits(self, model: Chain):
            place = select(model).named("a")
            return place.before("one", lambda _: Lambda(ten)) + place.after(
                "two", lambda _: Lambda(double)
            )

    assert tree.at("a") is base
    Around().inject(tree)
    assert tree.a is base
    assert float(tree.at("a")(torch.ones(1))) == 24.0
    assert tree.at("b") is tree.b
    with pytest.raises(TreeError, match="no layer named 'c'"):
        tree.at("c")


def test_a_leaf_without_context_is_a_plain_module():
    class Shift(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    assert torch.equal(Chain(Shift(), Shift())(x), x + 2)


@pytest.mark.parametrize("function", [nn.SiLU(), None, 3])
def test_lambda_takes_functions_only(function):
    with pytest.raises(TreeError, match=r"takes a function, not a"):
        Lambda(function)
