"""Law 5: a manual edit of a tree that wears adapters is detected and refused."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from refiners_core import Adapter, Chain, Identity, Sum, select
from refiners_core.errors import PlanError, SelectionError, TreeError

from ..trees import (
    EditSpec,
    RandomAdapter,
    adapter_specs,
    bare_state,
    build_tree,
    chains,
    tree_specs,
    worn_state,
)

FEW = settings(max_examples=max(60, settings.default.max_examples // 2))


def replace_mapping(chain: Chain) -> Callable[[], None]:
    worn = chain._modules
    chain.__dict__["_modules"] = dict(worn)
    return lambda: chain.__dict__.update(_modules=worn)


def put_another(chain: Chain) -> Callable[[], None]:
    name, layer = next(iter(chain._modules.items()))
    chain._modules[name] = Identity()
    return lambda: chain._modules.update({name: layer})


def add_by_attribute(chain: Chain) -> Callable[[], None]:
    chain.quantised = nn.Linear(4, 4)
    return lambda: delattr(chain, "quantised")


def take_away(chain: Chain) -> Callable[[], None]:
    name, layer = list(chain._modules.items())[-1]
    del chain._modules[name]
    return lambda: chain._modules.update({name: layer})


def reorder(chain: Chain) -> Callable[[], None]:
    before = dict(chain._modules)
    chain._modules.clear()
    chain._modules.update(reversed(before.items()))

    def undo() -> None:
        chain._modules.clear()
        chain._modules.update(before)

    if len(before) < 2:
        chain._modules["one_more"] = Identity()
    return undo


def edit_the_bare_mapping(chain: Chain) -> Callable[[], None]:
    chain._worn.bare["smuggled"] = Identity()
    return lambda: chain._worn.bare.pop("smuggled")


EDITS = (replace_mapping, put_another, add_by_attribute, take_away, reorder, edit_the_bare_mapping)


@FEW
@given(
    tree_specs(),
    adapter_specs(("wrap", "before", "after")),
    st.sampled_from(EDITS),
    st.integers(0, 20),
)
def test_a_tree_with_a_manual_edit_is_refused_until_the_edit_is_undone(
    tree_spec, specs, edit_by_hand, at
):
    tree = build_tree(tree_spec)
    bare = bare_state(tree)
    adapter, other = (
        RandomAdapter(specs, key="worn").inject(tree),
        RandomAdapter(specs, key="other"),
    )
    places = other.edits(tree)
    other.edits = lambda model: places  # the same seats after the manual edit, which shifts indices
    wearing = [chain for chain in chains(tree) if "_worn" in chain.__dict__]
    chain = wearing[at % len(wearing)]
    undo = edit_by_hand(chain)
    state = worn_state(tree)
    for do in (adapter.eject, lambda: other.inject(tree)):
        with pytest.raises(PlanError, match="was edited by hand while it wears worn") as caught:
            do()
        assert chain._worn.path() in str(caught.value)
        assert "Undo that edit" in caught.value.hint
        assert worn_state(tree) == state
    undo()
    other.inject(tree).eject()
    adapter.eject()
    assert bare_state(tree) == bare


def test_an_edit_of_the_bare_children_is_refused():
    tree = Chain(down=Chain(conv=nn.Linear(4, 4), act=nn.SiLU()))
    adapter = RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)
    del tree.down._worn.bare["act"]
    with pytest.raises(PlanError, match="its children of the bare chain were changed"):
        adapter.eject()


def test_the_refusal_names_children_that_came_and_went():
    tree = Chain(down=Chain(conv=nn.Linear(4, 4), act=nn.SiLU()))
    adapter = RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)
    tree.down._modules["late"] = nn.ReLU()
    with pytest.raises(PlanError, match="its children late were changed"):
        adapter.eject()
    del tree.down._modules["late"], tree.down._modules["act"]
    with pytest.raises(PlanError, match="its children act were changed"):
        adapter.eject()


def test_the_refusal_names_the_path_and_the_children():
    tree = Chain(down=Chain(conv=nn.Linear(4, 4), act=nn.SiLU()))
    adapter = RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)
    tree.down.act = nn.ReLU()
    with pytest.raises(PlanError) as caught:
        adapter.eject()
    assert str(caught.value) == (
        "Chain at down was edited by hand while it wears lora: its children act were changed. "
        "Undo that edit and try again; edit only bare chains by hand, or write an adapter."
    )


def test_the_edit_methods_refuse_a_chain_that_wears_adapters():
    tree = Chain(nn.Linear(4, 4), nn.SiLU())
    adapter = RandomAdapter([EditSpec("wrap", 0)], key="lora").inject(tree)
    state = worn_state(tree)
    for edit in (
        lambda: tree.append(Identity()),
        lambda: tree.insert(0, Identity()),
        lambda: tree.pop(),
        lambda: tree.remove(tree[1]),
        lambda: tree.replace(0, Identity()),
    ):
        with pytest.raises(TreeError, match="wears lora; it cannot be edited by hand"):
            edit()
    assert worn_state(tree) == state
    adapter.eject()
    tree.append(Identity())
    assert len(tree) == 3


def test_a_bare_chain_next_to_a_worn_one_can_be_edited_by_hand():
    tree = Chain(left=Chain(nn.Linear(4, 4)), right=Chain(nn.Linear(4, 4)))
    adapter = RandomAdapter([EditSpec("wrap", 1)], key="lora").inject(tree)
    tree.right.append(nn.SiLU())
    adapter.eject()
    assert [seat for seat, _ in tree.right.children_by_name()] == ["Linear_0", "SiLU_1"]


class Clumsy(Adapter):
    """An adapter whose `edits` removes the layer that it selects."""

    def edits(self, model):
        edits = select(model).named("second").wrap(lambda inner, seat: Sum(inner))
        model.pop("second")
        return edits


def test_an_adapter_whose_edits_change_the_tree_is_refused():
    tree = Chain(first=nn.Identity(), second=nn.Identity())
    with pytest.raises(PlanError, match="no Identity sits at 'second' any more"):
        Clumsy().inject(tree)
    assert [name for name, _ in tree.children_by_name()] == ["first"]


class Careless(Adapter):
    """An adapter whose `edits` removes a whole chain."""

    def edits(self, model):
        edits = select(model).of(nn.Identity).wrap(lambda inner, seat: Sum(inner))
        model.pop("second")
        return edits


def test_an_adapter_whose_edits_remove_a_chain_is_refused():
    tree = Chain(first=nn.Identity(), second=Chain(nn.Identity()))
    with pytest.raises(SelectionError, match="a part of the tree no longer exists"):
        Careless().inject(tree)
    assert [name for name, _ in tree.children_by_name()] == ["first"]


class Builder(Adapter):
    """An adapter whose `build` appends the layer that its `edits` selects."""

    def build(self, model, source):
        model.append(nn.SiLU(), "own")

    def edits(self, model):
        return select(model).of(nn.SiLU).expect(1).wrap(lambda inner, seat: Sum(inner))


def test_a_manual_edit_in_build_is_seen_by_edits():
    tree = Chain(first=nn.Identity())
    select(tree)
    with Builder(key="builder").on(tree):
        assert [name for name, _ in tree.children_by_name()] == ["first", "own+branch@builder"]


class Swapping(Adapter):
    """An adapter whose `edits` replaces the layer that it selects by one of another class."""

    def edits(self, model):
        edits = select(model).of(nn.Identity).wrap(lambda inner, seat: Sum(inner))
        model.replace("first", nn.SiLU())
        return edits


def test_a_layer_of_another_class_at_an_edited_place_is_refused():
    tree = Chain(first=nn.Identity())
    with pytest.raises(PlanError, match="no Identity sits at 'first' any more"):
        Swapping().inject(tree)


def test_a_chain_without_its_constructor_raises_the_error_of_torch():
    class Forgetful(Chain):
        def __init__(self):
            self.own = nn.Identity()

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Forgetful()
