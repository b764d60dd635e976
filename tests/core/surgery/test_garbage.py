"""Law 7: reference counting alone frees dropped models and adapters."""

import copy
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from refiners_core import Adapter, Chain, Sum, select
from refiners_core.errors import PlanError

from ..trees import (
    EditSpec,
    RandomAdapter,
    adapter_specs,
    bare_state,
    build_tree,
    outcome,
    tree_specs,
)

FEW = settings(max_examples=max(40, settings.default.max_examples // 4))


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refs(tree: nn.Module) -> list[weakref.ref]:
    """Returns weak references to every layer and weight of a tree."""
    return [weakref.ref(x) for x in (*tree.modules(), *tree.parameters())]


def alive(watched: list[weakref.ref]) -> int:
    return sum(ref() is not None for ref in watched)


@FEW
@given(tree_specs(), adapter_specs(), adapter_specs(("wrap", "before")))
def test_an_ejected_adapter_is_freed(tree_spec, specs, other_specs):
    tree = build_tree(tree_spec)
    RandomAdapter(other_specs, key="stays").inject(tree)
    adapter = RandomAdapter(specs)
    try:
        adapter.inject(tree)
    except PlanError:
        pass
    else:
        adapter.eject()
    watched = refs(adapter)
    del adapter
    assert alive(watched) == 0


@FEW
@given(tree_specs(), adapter_specs(), adapter_specs(("wrap", "before")))
def test_a_dropped_model_is_freed_while_its_adapters_live_on(tree_spec, specs, other_specs):
    tree = build_tree(tree_spec)
    adapters = [RandomAdapter(specs, key="a"), RandomAdapter(other_specs, key="b")]
    for adapter in adapters:
        try:
            adapter.inject(tree)
        except PlanError:
            continue
    outcome(tree)
    kept = {id(part) for adapter in adapters for part in adapter.modules()}
    kept |= {id(weight) for adapter in adapters for weight in adapter.parameters()}
    watched = [ref for ref in refs(tree) if id(ref()) not in kept]
    del tree
    assert alive(watched) == 0
    another = build_tree(tree_spec)
    for adapter in adapters:
        assert not adapter.is_worn
        try:
            adapter.inject(another)  # no longer worn, so free for another tree
        except PlanError:
            continue


def test_a_dropped_model_frees_an_adapter_that_nothing_else_holds():
    tree = Chain(nn.Linear(4, 4))
    adapter = RandomAdapter([EditSpec("wrap", 0)]).inject(tree)
    watched = refs(adapter)
    del adapter
    assert alive(watched) == len(watched)
    del tree
    assert alive(watched) == 0


def test_a_part_that_outlives_its_model_still_wears_and_can_be_ejected():
    tree = Chain(unet=Chain(nn.Linear(4, 4)))
    unet = tree.unet
    bare = bare_state(unet)
    adapter = RandomAdapter([EditSpec("wrap", 1)]).inject(tree)
    assert bare_state(unet) != bare
    del tree
    assert adapter.is_worn
    adapter.eject()
    assert bare_state(unet) == bare


def test_a_failed_call_keeps_nothing_alive():
    tree = Chain(Sum(nn.Linear(4, 4), Chain(nn.Linear(5, 4))))
    RandomAdapter([EditSpec("wrap", 1)]).inject(tree)
    inputs = torch.randn(2, 4)
    with pytest.raises(RuntimeError):
        tree(inputs)
    watched = [*refs(tree), weakref.ref(inputs)]
    del tree, inputs
    assert alive(watched) == 0


def test_a_failed_inject_keeps_nothing_alive():
    class Failing(Adapter):
        def edits(self, model: Chain):
            def make(inner: nn.Module, seat: object) -> nn.Module:
                raise ValueError("no")

            return select(model).of(nn.Linear).wrap(make)

    tree, adapter = Chain(nn.Linear(4, 4)), Failing()
    with pytest.raises(ValueError, match="no"):
        adapter.inject(tree)
    watched = refs(tree)
    del tree
    assert alive(watched) == 0


def test_copies_of_a_part_copy_that_part_alone():
    tree = Chain(left=Chain(nn.Linear(4, 4)), right=Chain(nn.Linear(4, 4)))
    watched = refs(tree)
    left = copy.deepcopy(tree.left)
    shared = tree.right.copy()
    del tree
    assert alive(watched) == 3  # the leaf of `right` and its two weights, which the copy shares
    assert len(list(left.modules())) == 2
    assert len(list(shared.modules())) == 2
