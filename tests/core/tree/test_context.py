"""Contexts: values that travel with one call and are never state of the tree."""

import threading

import pytest
import torch
from torch import Tensor, nn

from refiners_core import Chain, Context, Lambda, Residual, Scope, SetContext, Sum, UseContext
from refiners_core.errors import ContextError
from refiners_core.tree.place import Places

from ..trees import EditSpec, RandomAdapter, attributes, bits

x = torch.ones(1, 4)


def test_a_mapping_passed_as_context_is_copied():
    given = {"a": 1}
    Chain(SetContext("b"))(x, context=given)
    assert given == {"a": 1}


def test_a_context_passed_in_can_be_read_afterwards():
    context = Context({"a": 1})
    Chain(Sum(Chain(SetContext("b"))))(x, context=context)
    assert context["b"] is x
    assert sorted(context.keys()) == ["a", "b"]
    assert "b" in context
    assert context.get("c") is None
    assert context.get("c", 3) == 3
    assert repr(context) == "Context(a, b)"


def test_a_call_without_context_starts_empty():
    tree = Chain(SetContext("a"), Lambda(lambda x: x))
    tree(x)
    with pytest.raises(ContextError, match="no value named 'a' in the context; it has nothing"):
        Chain(UseContext("a"))(x)


@pytest.mark.parametrize("context", [3, "key", [("key", 1)]])
def test_a_context_from_something_other_than_a_mapping_is_refused(context):
    with pytest.raises(ContextError, match="a context is made from a mapping, not from"):
        Chain()(x, context=context)


def test_a_missing_key_is_reported_with_the_keys_that_exist_and_the_reader():
    tree = Chain(down=Residual(text=UseContext("text"), out=nn.Linear(4, 4)))
    with pytest.raises(ContextError) as caught:
        tree(x, context={"timestep": 1, "tokens": 2})
    assert str(caught.value).startswith(
        "no value named 'text' in the context; it has timestep, tokens."
    )
    assert 'SetContext("text")' in caught.value.hint
    (note,) = caught.value.__notes__
    assert note.startswith("In Chain, at down.text:")
    assert "text: UseContext('text')  <- here" in note


def test_an_exception_leaves_nothing_behind():
    def fail(value: Tensor) -> Tensor:
        raise ValueError("half-way")

    tree = Chain(SetContext("seen"), Scope(SetContext("inner"), fails=Lambda(fail)))
    state = [attributes(layer) for layer in tree.modules()]
    context = Context()
    with pytest.raises(ValueError, match="half-way"):
        tree(x, context=context)
    assert [attributes(layer) for layer in tree.modules()] == state
    tree[1].fails.function = lambda value: value
    assert tree(x, context=context) is x  # the same context works for another call
    assert list(context.keys()) == ["seen"]
    reader = Chain(UseContext("seen"))
    with pytest.raises(ContextError, match="'seen'"):
        reader(x)


def test_a_tree_can_be_called_from_inside_itself():
    def again(value: Tensor) -> Tensor:
        depth = int(value.sum())
        return value if depth >= 8 else tree(value + 1, context={"depth": depth})

    tree = Chain(
        SetContext("mine"), Lambda(again), after=Sum(UseContext("mine"), Lambda(torch.neg))
    )
    tree[1].function = again
    context = Context()
    tree(x, context=context)
    assert bits(context["mine"]) == bits(x)  # the inner call wrote into another context


def test_a_context_passed_to_an_inner_call_is_shared():
    class Nested(Chain):
        def run(self, context: Context, *inputs: Tensor) -> Tensor:
            return self[0](*inputs, context=context)  # by __call__ instead of self.call

    context = Context()
    Nested(Chain(SetContext("inner")))(x, context=context)
    assert "inner" in context


def test_eight_threads_run_one_tree_with_separate_contexts():
    torch.manual_seed(0)
    tree = Chain(
        SetContext("input"),
        Residual(nn.Linear(4, 4), SetContext("note"), nn.SiLU()),
        Scope(Sum(UseContext("mine"), UseContext("note")), rebind={"mine": "given"}),
        Sum(nn.Linear(4, 4), UseContext("input")),
    )
    adapter = RandomAdapter([EditSpec("wrap", 1), EditSpec("after", 2)]).inject(tree)
    inputs = [torch.randn(2, 4) for _ in range(8)]
    expected = [bits(tree(value, context={"given": value * 2})) for value in inputs]
    wrong: list[int] = []
    start = threading.Barrier(8)

    def work(i: int) -> None:
        start.wait()
        for _ in range(40):
            if bits(tree(inputs[i], context={"given": inputs[i] * 2})) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    adapter.eject()


def test_an_ejected_adapter_leaves_no_value_behind():
    tree = Chain(nn.Linear(4, 4))
    context = Context()
    adapter = RandomAdapter([EditSpec("after", 0)]).inject(tree)
    tree(x, context=context)
    adapter.eject()
    assert list(context.keys()) == []


def test_a_scope_without_adapters_has_none_of_their_values():
    context = Context({"text": 1, "edges.scale": 2, "edges.map": 3, "edges-2.scale": 4})
    inside = context.scope(without=["edges"])
    assert sorted(inside.keys()) == ["edges-2.scale", "text"]
    assert sorted(context.scope(without=[]).keys()) == sorted(context.keys())
    assert context["edges.map"] == 3


def test_a_scope_without_adapters_has_none_of_their_scales_by_place():
    scales = {"edges": {"unet.mid": None}, "photo": {"unet.mid": None}}
    context = Context()
    context._places = Places(scales, {7: dict(scales)})
    inside = context.scope(without=["edges"])._places
    assert (list(inside.scales), list(inside.blocks[7])) == (["photo"], ["photo"])
    assert list(context._places.scales) == ["edges", "photo"]
