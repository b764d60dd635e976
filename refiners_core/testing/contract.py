"""The laws that an adapter keeps, one function each; every failure is an `AssertionError`."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

from refiners_core.errors import AdapterError
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.plan import worn
from refiners_core.testing.case import AdapterCase, bits
from refiners_core.testing.evidence import (
    Failure,
    adapter_state,
    expect,
    expect_freed,
    expect_same,
    failing,
    no_collector,
    refused,
    said,
    state,
    thawed,
    watched_parts,
)


def restores_the_model(case: AdapterCase) -> None:
    """Ejected, it leaves no trace: layers, mappings, keys, weights and outputs are what they
    were."""
    model, adapter = case.bound()
    before, did = state(model), bits(case.run(model, {}))
    for _ in range(2):
        adapter.inject(model)
        case.run(model, case.conditions(adapter))
        adapter.eject()
        expect_same(state(model), before, f"{adapter.key} leaves a trace after its eject")
        expect(bits(case.run(model, {})) == did, f"after {adapter.key}'s eject the model differs")


def acts(case: AdapterCase) -> None:
    """Worn, it changes what the model does, the same each time."""
    model, adapter = case.bound()
    bare = bits(case.run(model, {}))
    adapter.inject(model)
    did = bits(case.run(model, case.conditions(adapter)))
    expect(
        did == bits(case.run(model, case.conditions(adapter))),
        f"{adapter.key} does something else each time",
    )
    expect(not case.is_visible or did != bare, f"worn, {adapter.key} changes nothing")


def is_absent_when_left_out(case: AdapterCase) -> None:
    """Worn but left out, or at scale 0, it changes no bit of what the model does without it."""
    model, adapter = case.bound()
    bare = bits(case.run(model, {}))
    adapter.inject(model)
    for conditions in case.left_out(adapter) if case.is_switched else ():
        expect(
            bits(case.run(model, conditions)) == bare,
            f"{adapter.key} is told {conditions[adapter]!r} and still changes what the model does",
        )


def does_not_mind_the_order(case: AdapterCase) -> None:
    """Beside another adapter, what the model does depends on the set worn, not on the order."""
    model, adapter = case.bound()
    other = case.beside()
    bare, did = state(model), dict[frozenset[Adapter], Any]()
    for order in ((adapter, other), (other, adapter)):
        for ejects in (order, order[::-1]):
            wearing: set[Adapter] = set()
            for one in (*order, *ejects):
                if one.is_worn:
                    one.eject()
                    wearing.remove(one)
                else:
                    one.inject(model)
                    wearing.add(one)
                now = bits(case.run(model, case.conditions(adapter) if adapter in wearing else {}))
                names = " and ".join(sorted(one.key for one in wearing)) or "nothing"
                expect(
                    did.setdefault(frozenset(wearing), now) == now,
                    f"wearing {names}, the model does something else in another order",
                )
            expect_same(state(model), bare, f"{adapter.key} beside {other.key} leaves a trace")


def patches_the_same_beside_others(case: AdapterCase) -> None:
    """What it edits does not depend on what else is worn."""
    model, adapter = case.bound()
    alone = said(adapter, model)
    case.beside().inject(model)
    expect(said(adapter, model) == alone, f"beside another, {adapter.key} edits other places")


def owns_its_layers(case: AdapterCase) -> None:
    """Its parameters and layers are its own, none of the base's."""
    model, adapter = case.bound()
    base = {id(x): name for name, x in (*model.named_modules(), *model.named_parameters())}
    for name, part in (*adapter.named_modules(), *adapter.named_parameters()):
        expect(
            id(part) not in base,
            f"{adapter.key} holds {base.get(id(part))!r} of the base as {name!r}",
        )


def takes_the_dtype_of_the_base(case: AdapterCase) -> None:
    """Its layers in the tree compute in the dtype of the model that it is injected into."""
    model, adapter = case.model().double(), case.make()
    base = set(model.modules())
    adapter.inject(model)
    for name, layer in model.named_modules():
        for weight in () if layer in base else layer.parameters(recurse=False):
            expect(
                not weight.is_floating_point() or weight.dtype == model.dtype,
                f"{adapter.key} brings {weight.dtype} to a model of {model.dtype}, at {name}",
            )


def refuses_what_makes_no_sense(case: AdapterCase) -> None:
    """A second inject, and an eject of what is not worn, are errors that change nothing."""
    model, adapter = case.bound()
    with refused(AdapterError, f"{adapter.key} is ejected though nothing wears it"):
        adapter.eject()
    adapter.inject(model)
    wearing = state(model)
    with refused(AdapterError, f"{adapter.key} is injected though it is worn"):
        adapter.inject(model)
    expect_same(state(model), wearing, f"a refused inject of {adapter.key} leaves a trace")


def fails_without_a_trace(case: AdapterCase) -> None:
    """An inject that fails, while building or wiring, changes neither model nor adapter."""
    for step in ("build", "edits", "a callback"):
        model, adapter = case.model(), case.make()
        before, own = state(model), adapter_state(adapter)
        with (
            failing(adapter, step),
            refused(Failure, f"{adapter.key} hides a failure in {step}"),
        ):
            adapter.inject(model)
        what = f"when {step} of {adapter.key} fails"
        expect_same(state(model), before, f"{what}, the model is left patched")
        expect(adapter_state(adapter) == own, f"{what}, the adapter is left half built")
        adapter.inject(model).eject()
        expect_same(state(model), before, f"{what}, the next inject leaves a trace")


def edits_what_it_declares(case: AdapterCase) -> None:
    """The places that it edits are those of its declared targets, and all of these."""
    if case.targets is None:
        return
    model, adapter = case.bound()
    places = {
        (slot, stage): {(id(seat.chain), seat.name) for seat in model.slot(slot)}
        for slot, stage in case.targets
    }
    used: set[tuple[str, str]] = set()
    for path, here, effect in (
        (seat.path, (id(seat.chain), seat.name), edit.stage if edit.kind == "wrap" else edit.kind)
        for edit in adapter.edits(model)
        for seat in edit.seats
    ):
        covering = {t for t, found in places.items() if t[1] == effect and here in found}
        expect(
            bool(covering),
            f"{adapter.key} edits {path} ({effect}), which it does not declare",
        )
        used |= covering
    unused = ", ".join(f"{slot} ({stage})" for slot, stage in places if (slot, stage) not in used)
    expect(not unused, f"{adapter.key} declares {unused} and edits nothing there")


def is_left_behind_by_copies(case: AdapterCase) -> None:
    """A deepcopy or pickle of a model that wears it is the bare model; its own copy is unworn."""
    model, adapter = case.bound()
    bare = bits(case.run(model, {}))
    adapter.inject(model)
    for verb, copied in (("deepcopy", copy.deepcopy), ("pickle", thawed)):
        twin = copied(model)
        expect(not worn(twin), f"a {verb} of the model still wears {adapter.key}")
        expect(bits(case.run(twin, {})) == bare, f"a {verb} of the model does something else")
        expect(not copied(adapter).is_worn, f"a {verb} of {adapter.key} counts as worn")


def is_freed_by_counting(case: AdapterCase) -> None:
    """An ejected adapter, and a model that nobody holds, are freed without the collector."""
    with no_collector():
        model, adapter = case.bound()
        adapter.inject(model)
        case.run(model, case.conditions(adapter))
        adapter.eject()
        key, watched = adapter.key, watched_parts(adapter.named_modules())
        del adapter
        expect_freed(watched, f"ejected and dropped, {key} is kept alive")
        adapter = case.make().inject(model)
        case.run(model, case.conditions(adapter))
        own = set(adapter.modules())
        watched = watched_parts(
            (name, layer) for name, layer in model.named_modules() if layer not in own
        )
        del model
        expect_freed(watched, f"{key} keeps a dropped model alive")


LAWS: Final[Sequence[Callable[[AdapterCase], None]]] = (
    restores_the_model,
    acts,
    is_absent_when_left_out,
    does_not_mind_the_order,
    patches_the_same_beside_others,
    owns_its_layers,
    takes_the_dtype_of_the_base,
    refuses_what_makes_no_sense,
    fails_without_a_trace,
    edits_what_it_declares,
    is_left_behind_by_copies,
    is_freed_by_counting,
)
"""All of the contract, for `pytest.mark.parametrize`."""


def check_adapter(make: Callable[[], Adapter], **facts: Any) -> None:
    """Asks the whole contract of an adapter.

    Args:
        make: Makes the adapter.
        facts: The other fields of `AdapterCase`.

    Raises:
        AssertionError: A law is broken; the text says which and how.

    Example:
        >>> from refiners_core.testing import Neighbour
        >>> check_adapter(Neighbour, is_switched=False)
    """
    for law in LAWS:
        law(AdapterCase(make, **facts))
