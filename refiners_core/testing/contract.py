"""The laws of the contract, one function each; every failure is an `AssertionError`."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

from refiners_core.errors import AdapterError
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.plan import worn
from refiners_core.testing.case import AdapterCase, bits
from refiners_core.testing.conduct import CONDUCT
from refiners_core.testing.evidence import (
    Failure,
    adapter_state,
    edits_of,
    expect,
    expect_freed,
    expect_same,
    failing,
    no_collector,
    refused,
    state,
    thawed,
    watched_parts,
)


def restores_the_model(case: AdapterCase) -> None:
    """Checks that an eject leaves no trace in layers, mappings, keys, weights and outputs."""
    model, adapter = case.model(), case.make()
    before, output = state(model), bits(case.run(model, {}))

    def expect_no_trace() -> None:
        expect_same(state(model), before, f"{adapter.key} leaves a trace after its eject")
        expect(
            bits(case.run(model, {})) == output, f"after {adapter.key}'s eject the model differs"
        )

    case.bind(adapter, model)
    expect_no_trace()
    for _ in range(2):
        adapter.inject(model)
        case.run(model, case.conditions(adapter))
        adapter.eject()
        expect_no_trace()


def acts(case: AdapterCase) -> None:
    """Checks that the adapter changes the output of the model, the same way each time."""
    model, adapter = case.bound()
    bare = bits(case.run(model, {}))
    adapter.inject(model)
    output = bits(case.run(model, case.conditions(adapter)))
    expect(
        output == bits(case.run(model, case.conditions(adapter))),
        f"two runs with {adapter.key} differ",
    )
    expect(not case.is_visible or output != bare, f"worn, {adapter.key} changes nothing")


def is_absent_when_left_out(case: AdapterCase) -> None:
    """Checks that the adapter, worn but left out or at scale 0, changes no bit of the output."""
    model, adapter = case.bound()
    bare = bits(case.run(model, {}))
    adapter.inject(model)
    for conditions in case.left_out(adapter) if case.is_switched else ():
        expect(
            bits(case.run(model, conditions)) == bare,
            f"with the condition {conditions[adapter]!r}, {adapter.key} still changes the output",
        )


def does_not_mind_the_order(case: AdapterCase) -> None:
    """Checks that the output depends on the set of worn adapters, not on the order of injects."""
    model, adapter = case.bound()
    other = case.beside()
    bare, outputs = state(model), dict[frozenset[Adapter], Any]()
    seen: set[tuple[Adapter, ...]] = set()
    for order in ((adapter, other), (other, adapter)):
        for ejects in (order, order[::-1]):
            wearing: set[Adapter] = set()
            moves: tuple[Adapter, ...] = ()
            for moved in (*order, *ejects):
                moves = (*moves, moved)
                if moved.is_worn:
                    moved.eject()
                    wearing.remove(moved)
                else:
                    moved.inject(model)
                    wearing.add(moved)
                if moves in seen:
                    continue
                seen.add(moves)
                now = bits(case.run(model, case.conditions(adapter) if adapter in wearing else {}))
                names = (
                    " and ".join(sorted(worn_adapter.key for worn_adapter in wearing)) or "nothing"
                )
                expect(
                    outputs.setdefault(frozenset(wearing), now) == now,
                    f"wearing {names}, the output depends on the order of injects and ejects",
                )
            expect_same(state(model), bare, f"{adapter.key} beside {other.key} leaves a trace")


def patches_the_same_beside_others(case: AdapterCase) -> None:
    """Checks that the edits do not depend on other worn adapters."""
    model, adapter = case.bound()
    alone = edits_of(adapter, model)
    case.beside().inject(model)
    expect(edits_of(adapter, model) == alone, f"beside another, {adapter.key} edits other places")


def owns_its_layers(case: AdapterCase) -> None:
    """Checks that the adapter holds no parameters or layers of the base."""
    model, adapter = case.bound()
    base = {id(x): name for name, x in (*model.named_modules(), *model.named_parameters())}
    for name, part in (*adapter.named_modules(), *adapter.named_parameters()):
        expect(
            id(part) not in base,
            f"{adapter.key} holds {base.get(id(part))!r} of the base as {name!r}",
        )


def takes_the_dtype_of_the_base(case: AdapterCase) -> None:
    """Checks that the layers of the adapter take the dtype of the model."""
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
    """Checks that a second inject, and an eject while not worn, raise and change nothing."""
    model, adapter = case.bound()
    with refused(AdapterError, f"{adapter.key} is ejected though nothing wears it"):
        adapter.eject()
    adapter.inject(model)
    wearing = state(model)
    with refused(AdapterError, f"{adapter.key} is injected though it is worn"):
        adapter.inject(model)
    expect_same(state(model), wearing, f"a refused inject of {adapter.key} leaves a trace")


def fails_without_a_trace(case: AdapterCase) -> None:
    """Checks that an inject that fails in any step changes neither model nor adapter."""
    for step in ("build", "edits", "a callback"):
        model, adapter = case.model(), case.make()
        before, adapter_before = state(model), adapter_state(adapter)
        with (
            failing(adapter, step),
            refused(Failure, f"{adapter.key} hides a failure in {step}"),
        ):
            adapter.inject(model)
        failure = f"when {step} of {adapter.key} fails"
        expect_same(state(model), before, f"{failure}, the model is left patched")
        expect(
            adapter_state(adapter) == adapter_before, f"{failure}, the adapter is left half built"
        )
        adapter.inject(model).eject()
        expect_same(state(model), before, f"{failure}, the next inject leaves a trace")


def edits_what_it_declares(case: AdapterCase) -> None:
    """Checks that the adapter edits places of all its declared targets, and no others."""
    if case.targets is None:
        return
    model, adapter = case.bound()
    places = {
        (slot, stage): {(id(seat.chain), seat.name) for seat in model.slot(slot)}
        for slot, stage in case.targets
    }
    used: set[tuple[str, str]] = set()
    for path, place, effect in (
        (seat.path, (id(seat.chain), seat.name), edit.stage if edit.kind == "wrap" else edit.kind)
        for edit in adapter.edits(model)
        for seat in edit.seats
    ):
        covering = {t for t, known in places.items() if t[1] == effect and place in known}
        expect(
            bool(covering),
            f"{adapter.key} edits {path} ({effect}), which it does not declare",
        )
        used |= covering
    unused = ", ".join(f"{slot} ({stage})" for slot, stage in places if (slot, stage) not in used)
    expect(not unused, f"{adapter.key} declares {unused} and edits nothing there")


def is_left_behind_by_copies(case: AdapterCase) -> None:
    """Checks that a deepcopy or pickle of a model is bare, and that of an adapter not worn."""
    model, adapter = case.bound()
    bare = bits(case.run(model, {}))
    adapter.inject(model)
    for verb, copied in (("deepcopy", copy.deepcopy), ("pickle", thawed)):
        twin = copied(model)
        expect(not worn(twin), f"a {verb} of the model still wears {adapter.key}")
        expect(bits(case.run(twin, {})) == bare, f"a {verb} of the model has another output")
        expect(not copied(adapter).is_worn, f"a {verb} of {adapter.key} counts as worn")


def is_freed_by_counting(case: AdapterCase) -> None:
    """Checks that reference counts alone free an ejected adapter and a dropped model."""
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
        adapter_layers = set(adapter.modules())
        watched = watched_parts(
            (name, layer) for name, layer in model.named_modules() if layer not in adapter_layers
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
"""The laws of an adapter's edits, for `pytest.mark.parametrize`."""


def check_adapter(make: Callable[[], Adapter], **facts: Any) -> None:
    """Checks the whole contract for an adapter: `LAWS` and `CONDUCT`.

    Args:
        make: Makes the adapter.
        facts: The other fields of `AdapterCase`.

    Raises:
        AssertionError: A law is broken; the message describes how.

    Example:
        >>> from refiners_core.testing import Neighbour
        >>> check_adapter(Neighbour, is_switched=False)
    """
    for law in (*LAWS, *CONDUCT):
        law(AdapterCase(make, **facts))
