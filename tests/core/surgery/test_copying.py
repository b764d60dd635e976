"""Law 6: a copy, a pickle or a saved file is the base, whatever it wears."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from refiners_core import Chain, Context, Lambda
from refiners_core.errors import PlanError

from ..trees import (
    EditSpec,
    RandomAdapter,
    adapter_specs,
    add,
    bits,
    build_tree,
    is_bare,
    outcome,
    thawed,
    tree_specs,
)

FEW = settings(max_examples=max(40, settings.default.max_examples // 4))


def saved_and_loaded(tree: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, thawed, saved_and_loaded])
@FEW
@given(tree_specs(), adapter_specs())
def test_a_copy_of_a_worn_tree_is_a_bare_tree(copied, tree_spec, specs):
    tree = build_tree(tree_spec)
    bare, keys, weights = outcome(tree), list(tree.state_dict()), bits_of(tree)
    adapter = RandomAdapter(specs, key="lora")
    try:
        adapter.inject(tree)
    except PlanError:
        return
    worn = outcome(tree)
    twin = copied(tree)
    assert is_bare(twin)
    assert outcome(twin) == bare
    assert (list(twin.state_dict()), bits_of(twin)) == (keys, weights)
    ids = {id(weight) for weight in (*tree.parameters(), *adapter.parameters())}
    assert ids.isdisjoint(id(weight) for weight in twin.parameters())
    assert outcome(tree) == worn  # copying does not change the tree
    again = RandomAdapter(specs, key="lora")
    again.inject(twin)
    assert outcome(twin) == worn


def bits_of(tree: nn.Module) -> list[object]:
    return [bits(weight) for weight in tree.state_dict().values()]


@pytest.mark.parametrize("copied", [copy.deepcopy, thawed, saved_and_loaded])
def test_a_copy_of_an_adapter_is_not_worn(copied):
    tree = Chain(nn.Linear(4, 4))
    bare = outcome(tree)
    adapter = RandomAdapter([EditSpec("replace", 0)], key="lora").inject(tree)
    worn = outcome(tree)
    with torch.no_grad():  # weights that differ from those of a constructor
        adapter.own_layers.Linear_0["0"].by.mul_(3)
    trained = outcome(tree)
    assert trained != worn
    twin = copied(adapter)
    assert not twin.is_worn
    adapter.eject()
    twin.inject(tree)
    assert outcome(tree) == trained
    twin.eject()
    assert outcome(tree) == bare


def test_a_copy_keeps_aliasing_modes_and_gradients():
    linear = nn.Linear(4, 4).requires_grad_(False)
    tree = Chain(a=linear, b=Chain(linear), c=nn.Dropout()).eval()
    for twin in (copy.deepcopy(tree), thawed(tree)):
        assert twin.a is twin.b[0]
        assert not twin.training
        assert not twin.a.weight.requires_grad


def test_a_part_of_a_tree_is_copied_alone():
    tree = Chain(small=Chain(nn.Linear(4, 4)), large=Chain(nn.Linear(512, 512)))
    assert len(pickle.dumps(tree.small)) < 10_000


def test_a_context_can_be_copied_and_pickled():
    context = Context({"a": torch.ones(2)})
    for twin in (copy.deepcopy(context), thawed(context)):
        assert torch.equal(twin["a"], context["a"])
        twin["b"] = 1
        assert "b" not in context


def test_state_dict_includes_the_layers_of_adapters():
    tree = Chain(nn.Linear(4, 4))
    keys = list(tree.state_dict())
    adapter = RandomAdapter([EditSpec("wrap", 0)], key="lora").inject(tree)
    assert any("@lora" in key for key in tree.state_dict())
    tree.load_state_dict(tree.state_dict())
    adapter.eject()
    assert list(tree.state_dict()) == keys


def test_a_function_in_a_tree_is_pickled_by_name():
    assert thawed(Chain(Lambda(add)))[0].function is add
