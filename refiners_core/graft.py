"""From edits to what a tree wears: plan everything, then swap mappings of children.

A tree is its base plus the set of adapters it wears. Each touched chain keeps its bare mapping and,
per name, the edits of the worn adapters; the mapping it wears is folded from these. Ejecting drops
one adapter's edits and folds again, so nobody writes the way back, and the order of injects and
ejects leaves no trace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from torch import nn

from refiners_core.bare import bare_children
from refiners_core.chain import Chain
from refiners_core.errors import PlanError
from refiners_core.layer import running_root
from refiners_core.selection import Edit
from refiners_core.survey import survey
from refiners_core.worn import Placed, Swap, Worn, bare_mapping, fold

if TYPE_CHECKING:
    from refiners_core.adapter import Adapter

_swapping: Final = threading.Lock()


def worn(tree: Chain) -> tuple[Adapter, ...]:
    """Returns the adapters that a tree wears anywhere, sorted by name and serial number."""
    return _worn_by(survey(tree).chains())


def _worn_by(chains: Iterable[Chain]) -> tuple[Adapter, ...]:
    found: dict[int, Adapter] = {}
    for chain in chains:
        record: Worn | None = chain.__dict__.get("_worn")
        for several in record.placed.values() if record else ():
            for p in several:
                found[id(p.adapter)] = p.adapter
    return tuple(sorted(found.values(), key=lambda adapter: adapter.order))


def plan_inject(tree: Chain, adapter: Adapter, edits: Iterable[Edit]) -> list[Swap]:
    """Turns edits into swaps without touching the tree.

    Args:
        tree: The root.
        adapter: Who says the edits.
        edits: The edits; each is given the seat's path from this root, however it was selected.

    Raises:
        PlanError: The edits contradict the tree, each other or what it wears; or a call of it is
            running.
    """
    known = survey(tree)
    chains = tuple(known.chains())
    check_idle(chains, f"inject {adapter.key}")
    for other in _worn_by(chains):
        if other.key == adapter.key:
            raise PlanError(
                f"{type(tree).__name__} already wears an adapter with the key {adapter.key!r}.",
                hint="Give this one another key: key=... at construction.",
            )
    by_chain: dict[int, tuple[Chain, dict[str, list[Placed]]]] = {}
    for position, edit in enumerate(edits):
        chain = edit.seat.chain
        seat = known.places.get((id(chain), edit.seat.name))
        if seat is None:
            raise PlanError(
                f"{adapter.key} edits {edit.seat.path!r}, which is no place in "
                f"{type(tree).__name__}.",
                hint="Select from the tree that is passed to edits(), at the time it is passed.",
            )
        _, names = by_chain.setdefault(id(chain), (chain, {}))
        said = edit if edit.seat is seat else edit._replace(seat=seat)
        placed = Placed(adapter, position, said)
        names.setdefault(seat.name, []).append(placed)
    if not by_chain:
        raise PlanError(
            f"{adapter.key} found nothing to edit in {type(tree).__name__}.",
            hint="Print its selection to see what it looked for.",
        )
    return _folded(chains, by_chain)


def plan_eject(tree: Chain, chains: Sequence[Chain], adapter: Adapter) -> list[Swap]:
    """Returns the swaps after which these chains of a tree wear no edit of an adapter.

    Raises:
        PlanError: A chain was edited by hand, or a call of the tree is running.
    """
    check_idle([tree, *chains], f"eject {adapter.key}")
    swaps: list[Swap] = []
    for chain in chains:
        record = _checked(chain)
        if record is None:
            continue
        placed: dict[str, tuple[Placed, ...]] = {}
        changed: set[str] = set()
        for name, several in record.placed.items():
            kept = tuple([p for p in several if p.adapter is not adapter])
            if kept:
                placed[name] = kept
            if len(kept) != len(several):
                changed.add(name)
        if changed:
            after = fold(chain, record, placed, changed) if placed else None
            swaps.append(Swap(chain, record, after))
    return swaps


def apply(swaps: Sequence[Swap]) -> list[Swap]:
    """Makes the swaps, all of them or none.

    Returns:
        The swaps that undo them.

    Raises:
        PlanError: What a chain wears has changed since the swaps were planned.
    """
    with _swapping:
        for swap in swaps:
            _check_fresh(swap)
        before = [(c, record, c.__dict__["_modules"]) for c, record, _ in swaps]
        try:
            for chain, _, after in swaps:
                _wear(chain, after, after.mapping if after else bare_mapping(chain))
        except BaseException:
            for chain, record, mapping in before:
                _wear(chain, record, mapping)
            raise
    return [Swap(chain, after, before) for chain, before, after in swaps]


def _check_fresh(swap: Swap) -> None:
    record = swap.after or swap.before
    assert record is not None, "a swap from bare to bare"
    if (
        swap.chain.__dict__.get("_worn") is not swap.before
        or bare_mapping(swap.chain) is not record.bare
    ):
        raise PlanError(
            f"{type(swap.chain).__name__} was edited while an edit of it was being planned.",
            hint="Inject and eject one after the other, and not inside a callback of another.",
        )


def _wear(chain: Chain, record: Worn | None, mapping: Mapping[str, nn.Module]) -> None:
    chain.__dict__["_modules"] = mapping
    if record is None:
        chain.__dict__.pop("_worn", None)
    else:
        chain.__dict__["_worn"] = record


def check_idle(chains: Iterable[Chain], what: str) -> None:
    """Makes sure that no call that any of these chains takes part in is running.

    Raises:
        PlanError: One is.
    """
    root = running_root(chains)
    if root is not None:
        raise PlanError(
            f"cannot {what}: {type(root).__name__} is running.",
            hint="Wait until its call has returned; a callback that returns False ends one.",
        )


def _checked(chain: Chain) -> Worn | None:
    """Returns what a chain wears after making sure that nobody changed it behind our back."""
    record: Worn | None = chain.__dict__.get("_worn")
    if record is None:
        return None
    mapping = chain.__dict__["_modules"]
    if mapping is not record.mapping:
        what = "its mapping of children was replaced"
    elif (
        tuple(mapping.items()) != record.snapshot
        or tuple(record.bare.items()) != record.bare_snapshot
    ):
        now, then = dict(mapping), dict(record.snapshot)
        names = sorted({n for n in now.keys() | then.keys() if now.get(n) is not then.get(n)})
        what = f"its children {', '.join(names) or 'of the bare chain'} were changed"
    else:
        return record
    raise PlanError(
        f"{type(chain).__name__} at {record.path()} was edited by hand while it wears "
        f"{', '.join(record.keys())}: {what}.",
        hint="Undo that edit and try again; edit by hand only what is bare, or write an adapter.",
    )


def _folded(
    chains: Sequence[Chain], by_chain: Mapping[int, tuple[Chain, Mapping[str, Sequence[Placed]]]]
) -> list[Swap]:
    swaps: list[Swap] = []
    for chain, added in by_chain.values():
        record = _checked(chain)
        placed = dict(record.placed) if record else {}
        for name, several in added.items():
            placed[name] = (*placed.get(name, ()), *several)
            _check_seat(placed[name])
        swaps.append(Swap(chain, record, fold(chain, record, placed, set(added))))
    planned = {id(swap.chain): swap.after for swap in swaps if swap.after}
    records: list[Worn | None] = [chain.__dict__.get("_worn") for chain in chains]
    if any(r is not None and r.is_exclusive for r in (*planned.values(), *records)):
        _check_below(chains[0], "", None, planned, set())
    return swaps


def _check_seat(placed: Sequence[Placed]) -> None:
    if len(placed) == 1:
        return
    exclusive = [p for p in placed if p.is_exclusive]
    path = placed[0].edit.seat.path
    if len(exclusive) > 1:
        a, b = exclusive[:2]
        raise PlanError(
            f"{a.adapter.key} and {b.adapter.key} both {b.edit.kind} {path!r}; only one can.",
            hint=f"Eject {a.adapter.key} first.",
        )
    wraps = [p for p in placed if p.edit.kind == "wrap"]
    if exclusive and exclusive[0].edit.kind == "remove" and wraps:
        raise PlanError(
            f"{wraps[0].adapter.key} wraps {path!r}, which {exclusive[0].adapter.key} removes.",
            hint="Eject one of them first.",
        )


def _check_below(
    chain: Chain, prefix: str, hider: Placed | None, planned: Mapping[int, Worn], seen: set[int]
) -> None:
    """Refuses edits inside what an edit replaces or removes, whichever came first."""
    seen.add(id(chain))
    record: Worn | None = planned.get(id(chain)) or chain.__dict__.get("_worn")
    if hider is not None and record is not None:
        inner = next(iter(record.placed.values()))[0]
        raise PlanError(
            f"{inner.adapter.key} edits {inner.edit.seat.path!r}, inside "
            f"{hider.edit.seat.path!r}, which {hider.adapter.key} {hider.edit.kind}s.",
            hint="Eject one of them first.",
        )
    for name, child in bare_children(chain).items():
        if isinstance(child, Chain) and id(child) not in seen:
            placed = record.placed.get(name, ()) if record else ()
            replacing = next((p for p in placed if p.is_exclusive), None)
            _check_below(child, f"{prefix}{name}.", hider or replacing, planned, seen)
