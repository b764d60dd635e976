"""Plans of several adapters on one chain: names, untouched layers and detected edits."""

from collections.abc import Callable

import pytest
from torch import nn

from refiners_core import Adapter, Chain, Sum, select
from refiners_core.errors import PlanError
from refiners_core.surgery.plan import apply, plan_eject
from refiners_core.surgery.selection import Selection

from .test_hand_edits import EDITS


class Root(Chain):
    """A tree whose root is a named class."""


class FromFunction(Adapter):
    """An adapter whose edits a function makes of a selection."""

    def __init__(self, key: str, what: Callable[[Selection], object], name: str = "linear") -> None:
        super().__init__(key=key)
        self.what, self.at = what, name

    def edits(self, model: Chain) -> object:
        return self.what(select(model).named(self.at))


def tree() -> Root:
    return Root(linear=nn.Linear(4, 4), act=nn.SiLU(), inner=Chain(deep=nn.Linear(4, 4)))


def wrap(at: Selection) -> object:
    return at.wrap(lambda inner, seat: Sum(inner, nn.Identity()), stage="branch")


def test_an_adapter_that_stays_keeps_its_layers():
    root = tree()
    first, other = (
        FromFunction("one", wrap).inject(root),
        FromFunction("other", wrap, "act").inject(root),
    )
    layer = next(v for k, v in root._modules.items() if k.startswith("act"))
    first.eject()
    assert next(v for k, v in root._modules.items() if k.startswith("act")) is layer
    third = FromFunction("third", wrap).inject(root)
    assert next(v for k, v in root._modules.items() if k.startswith("act")) is layer
    third.eject()
    other.eject()
    assert list(root._modules) == ["linear", "act", "inner"]


def test_layers_before_and_after_a_removed_layer_may_stay():
    root = tree()
    beside = [
        FromFunction("b", lambda at: at.before("b", lambda seat: nn.Identity())),
        FromFunction("a", lambda at: at.after("a", lambda seat: nn.Identity())),
    ]
    for adapter in beside:
        adapter.inject(root)
    removal = FromFunction("removal", lambda at: at.remove()).inject(root)
    names = list(root._modules)
    assert "linear" not in names
    assert len(names) == 4
    with pytest.raises(PlanError, match="late wraps 'linear', which removal removes"):
        FromFunction("late", wrap).inject(root)
    for adapter in (*beside, removal):
        adapter.eject()
    wrapping = FromFunction("wrapping", wrap).inject(root)
    with pytest.raises(PlanError, match="wrapping wraps 'linear', which removal removes"):
        removal.inject(root)
    FromFunction("b2", lambda at: at.before("b", lambda seat: nn.Identity())).inject(root)
    assert wrapping.is_worn


def test_a_refusal_names_the_root():
    with pytest.raises(PlanError, match="nothing found nothing to edit in Root"):
        FromFunction("nothing", wrap, "nowhere").inject(tree())
    root = tree()
    FromFunction("one", wrap).inject(root)
    with pytest.raises(PlanError, match="Root already wears an adapter with the key 'one'"):
        FromFunction("one", wrap).inject(root)


def test_a_bare_chain_is_skipped():
    root = tree()
    adapter = FromFunction("one", wrap).inject(root)
    (swap,) = plan_eject(root, [root.layer("inner", Chain), root], adapter)
    assert (swap.chain, swap.after) == (root, None)
    undo = apply([swap])
    assert list(root._modules) == ["linear", "act", "inner"]
    apply(undo)
    adapter.eject()


@pytest.mark.parametrize("edit", EDITS)
def test_every_manual_edit_is_detected(edit: Callable[[Chain], Callable[[], None]]):
    root = tree()
    adapter = FromFunction("one", wrap).inject(root)
    undo = edit(root)
    for do in (adapter.eject, lambda: FromFunction("two", wrap, "act").inject(root)):
        with pytest.raises(PlanError, match="was edited by hand while it wears one"):
            do()
    undo()
    adapter.eject()


def test_replaced_and_removed_base_layers_are_known():
    root = tree()
    linear, act = root.linear, root.act
    FromFunction("one", wrap).inject(root)
    assert root._worn.hidden() == ()  # the base layer runs, inside its wrap
    replaced = FromFunction("two", lambda at: at.replace(lambda seat: nn.Identity()), "act").inject(
        root
    )
    assert root._worn.hidden() == (act,)
    removed = FromFunction("three", lambda at: at.remove(), "inner").inject(root)
    assert root._worn.hidden() == (act, root._worn.bare["inner"])
    assert root._worn.bare["linear"] is linear
    removed.eject()
    replaced.eject()
    assert root._worn.hidden() == ()


def test_layers_that_one_adapter_puts_after_a_seat_keep_its_order():
    root = tree()
    made = [nn.Identity() for _ in range(4)]

    def after(at: Selection) -> object:
        first, *rest = (at.after(f"a{i}", lambda seat, i=i: made[i]) for i in range(4))
        for edits in rest:
            first += edits
        return first

    FromFunction("one", after).inject(root)
    layers = list(root._modules.values())
    assert layers[1:5] == made
