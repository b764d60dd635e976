"""Guards of surgery: the order of layers, and the moments at which edits are refused."""

import pytest
import torch
from torch import nn

from refiners_core import Adapter, Chain, Lambda, Model, Sum, select
from refiners_core.errors import PlanError
from refiners_core.hookspecs import hookimpl, manager
from refiners_core.tree.context import Context
from refiners_core.tree.layer import running

x = torch.ones(1, 4)


def tiny():
    return Chain(down=Chain(conv=nn.Linear(4, 4), act=nn.SiLU()), up=nn.Linear(4, 4))


class Twice(Adapter):
    """An adapter that adds two layers after each activation."""

    def edits(self, model):
        seats = select(model).of(nn.SiLU)
        return (
            *seats.after("first", lambda seat: nn.Identity()),
            *seats.after("second", lambda seat: nn.Identity()),
        )


class Beside(Adapter):
    """An adapter that adds a layer beside each layer of a class."""

    def __init__(self, kind=nn.Linear, **options):
        super().__init__(**options)
        self.kind = kind

    def edits(self, model):
        return select(model).of(self.kind).wrap(lambda inner, seat: Sum(inner, nn.Identity()))


@pytest.mark.parametrize("is_turned", [False, True])
def test_layers_after_a_seat_keep_the_order_of_edits_with_the_last_adapter_nearest(is_turned):
    tree = tiny()
    adapters = [Twice(key="a"), Twice(key="b")]
    for adapter in reversed(adapters) if is_turned else adapters:
        adapter.inject(tree)
    names = [name for name, _ in tree.layer("down", Chain).named_children()]
    assert names[1:] == [
        *("act", "act+first@b", "act+second@b"),
        *("act+first@a", "act+second@a"),
    ]


def test_a_manual_edit_by_a_hook_between_plan_and_swap_is_detected():
    class Meddler:
        @hookimpl
        def before_inject(self, event):
            event.tree.layer("down", Chain).append(nn.ReLU())

    tree, adapter, meddler = tiny(), Beside(), Meddler()
    manager().register(meddler)
    try:
        with pytest.raises(PlanError, match="was edited while an edit of it was being planned"):
            adapter.inject(tree)
    finally:
        manager().unregister(meddler)
    assert not adapter.is_worn
    assert type(tree.layer("down", Chain)[-1]) is nn.ReLU
    adapter.inject(tree)


def test_an_eject_is_refused_while_a_part_that_wears_the_adapter_runs_alone():
    tree = tiny()
    adapter = Beside().inject(tree)
    with running(tree.layer("down", Chain)), pytest.raises(PlanError, match="Chain is running"):
        adapter.eject()
    assert adapter.is_worn
    adapter.eject()


def test_a_reused_context_guards_the_second_call_as_the_first():
    refused = []
    tree = Chain(meddle=Lambda(lambda value: meddle(value)), up=nn.Linear(4, 4))

    def meddle(value):
        with pytest.raises(PlanError, match="is running") as error:
            Beside().inject(tree)
        refused.append(error.value)
        return value

    context = Context()
    for _ in range(2):
        tree(x, context=context)
    assert len(refused) == 2


def test_all_adapters_are_ejected_or_none():
    model = Model(base="tiny", facts={}, slots={}, first=tiny(), second=Chain(act=nn.SiLU()))
    a, b = Beside(key="a").inject(model), Beside(nn.SiLU, key="b").inject(model)
    second = model.layer("second", Chain)
    worn = dict(second._modules)
    second.__dict__["_modules"] = {**worn, "more": nn.ReLU()}
    with pytest.raises(PlanError):
        model.eject_all()
    assert (a.is_worn, b.is_worn) == (True, True)
