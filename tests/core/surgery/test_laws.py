"""Laws 1, 2 and 4: random trees wear random adapters in random orders.

1. Eject restores exactly, in any order.
2. What a tree computes depends on the set worn, not on the order of injects and ejects.
4. What an adapter patches does not depend on what else is worn.
"""

from itertools import permutations
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from refiners_core import Chain, select
from refiners_core.errors import PlanError

from ..trees import (
    EditSpec,
    RandomAdapter,
    adapter_specs,
    bare_state,
    build_tree,
    chains,
    is_bare,
    outcome,
    tree_specs,
    worn_state,
)

FEW = settings(max_examples=max(20, settings.default.max_examples // 10))


def build_adapters(specs: list[list[EditSpec]]) -> list[RandomAdapter]:
    return [RandomAdapter(edits, key=f"k{i}") for i, edits in enumerate(specs)]


class Ledger:
    """The output seen for each set of adapters, which must not depend on the order of injects."""

    def __init__(self, tree: Chain) -> None:
        self.tree = tree
        self.seen: dict[frozenset[str], Any] = {}
        self.refused: dict[frozenset[str], bool] = {}

    def note(self, worn: set[RandomAdapter]) -> None:
        names = frozenset(adapter.key for adapter in worn)
        now = outcome(self.tree)
        assert self.seen.setdefault(names, now) == now, f"{set(names)} depends on the order"

    def note_verdict(self, worn: set[RandomAdapter], is_refused: bool) -> None:
        names = frozenset(adapter.key for adapter in worn)
        assert self.refused.setdefault(names, is_refused) == is_refused, (
            f"{set(names)} is refused in one order and accepted in another"
        )


def toggle(tree: Chain, adapter: RandomAdapter, worn: set[RandomAdapter], ledger: Ledger) -> None:
    """Ejects the adapter if it is worn, else injects it; a refused inject changes nothing."""
    if adapter in worn:
        adapter.eject()
        worn.remove(adapter)
        return
    before = worn_state(tree)
    try:
        adapter.inject(tree)
    except PlanError:
        event("refused")
        assert worn_state(tree) == before
        assert not adapter.is_worn
        ledger.note_verdict({*worn, adapter}, is_refused=True)
    else:
        worn.add(adapter)
        ledger.note_verdict(worn, is_refused=False)


@given(
    tree_specs(),
    st.lists(adapter_specs(), min_size=2, max_size=4),
    st.lists(st.integers(0, 3), min_size=2, max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_output_depends_on_the_set_worn_and_ejecting_restores_the_tree(
    tree_spec, specs, steps, random
):
    tree = build_tree(tree_spec)
    adapters, worn = build_adapters(specs), set[RandomAdapter]()
    bare, paths = bare_state(tree), [seat.path for seat in select(tree)]
    ledger = Ledger(tree)
    for step in steps:
        toggle(tree, adapters[step % len(adapters)], worn, ledger)
        ledger.note(worn)
        assert [seat.path for seat in select(tree)] == paths, "select sees more than the base"
        if not worn:
            assert bare_state(tree) == bare
    event(f"{len(worn)} worn at the end")
    for adapter in random.sample(sorted(worn, key=lambda a: a.key), len(worn)):
        adapter.eject()
        worn.remove(adapter)
        ledger.note(worn)
    assert is_bare(tree)
    assert bare_state(tree) == bare


@FEW
@given(tree_specs(), st.lists(adapter_specs(("wrap", "before", "after")), min_size=4, max_size=4))
def test_all_orders_of_ejecting_four_adapters_restore(tree_spec, specs):
    tree = build_tree(tree_spec)
    adapters = build_adapters(specs)
    bare, ledger = bare_state(tree), Ledger(tree)
    for order in permutations(adapters):
        for adapter in adapters:
            adapter.inject(tree)
        worn = set(adapters)
        ledger.note(worn)
        for adapter in order:
            adapter.eject()
            worn.remove(adapter)
            ledger.note(worn)
        assert bare_state(tree) == bare


@FEW
@given(tree_specs(), st.lists(adapter_specs(("wrap", "before", "after")), min_size=2, max_size=4))
def test_the_edits_of_an_adapter_do_not_depend_on_other_worn_adapters(tree_spec, specs):
    tree = build_tree(tree_spec)
    *others, last = build_adapters(specs)
    base = {id(layer) for layer in tree.modules()}
    last.inject(tree)
    alone = sorted(last.seen)
    last.eject()
    for other in others:
        other.inject(tree)
    last.inject(tree)
    assert sorted(last.seen) == alone
    for chain in chains(tree)[1:]:  # indexed for the first time while all are worn
        assert {id(seat.layer) for seat in select(chain)} <= base


@FEW
@given(tree_specs(), adapter_specs())
def test_an_adapter_is_built_once_and_wears_the_same_layers_again(tree_spec, specs):
    tree, adapter = build_tree(tree_spec), RandomAdapter(specs)
    base = {id(parameter) for parameter in tree.parameters()}
    try:
        adapter.inject(tree)
    except PlanError:
        return
    layers, first = list(adapter.modules()), outcome(tree)
    adapter.eject()
    adapter.inject(tree)
    assert list(adapter.modules()) == layers
    assert outcome(tree) == first
    assert base.isdisjoint(id(parameter) for parameter in adapter.parameters())
