"""The plan of an inject or eject: compute everything first, then swap mappings of children.

A tree is its base plus the set of adapters that it wears. Each touched chain keeps its bare mapping
and, by name, the edits of the worn adapters; the mapping that it wears is folded from these. An
eject drops the edits of one adapter and folds again, so no adapter implements its own removal, and
the order of injects and ejects leaves no trace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from torch import nn

from refiners_core.errors import PlanError
from refiners_core.surgery.overlay import Overlay, Swap, bare_mapping, fold, snapshot
from refiners_core.surgery.placed import Placed
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.tree_index import ChainRef, Seat, TreeIndex, tree_index
from refiners_core.surgery.wearable import Wearable
from refiners_core.tree.bare_tree import bare_children
from refiners_core.tree.chain import Chain
from refiners_core.tree.layer import running_root

_swapping: Final = threading.Lock()
_epoch = 0


def epoch() -> int:
    """Returns the number of applied plans: while it is the same, every tree wears the same."""
    return _epoch


def worn(tree: Chain) -> tuple[Wearable, ...]:
    """Returns the adapters that a tree wears anywhere, sorted by name and serial number.

    Raises:
        SelectionError: A part of the tree was garbage-collected during the call.
    """
    return _worn_by(tree_index(tree).chains())


def worn_at(chain: Chain, name: str) -> tuple[Wearable, ...]:
    """Returns the adapters that edit the place of a child, or anything below it.

    Raises:
        TreeError: The chain does not have such a place.
    """
    record: Overlay | None = chain.__dict__.get("_worn")
    placed = record.placed.get(name, ()) if record is not None else ()
    below = worn(chain.layer(name, Chain))
    adapters = {id(adapter): adapter for adapter in (*[p.adapter for p in placed], *below)}
    return tuple(sorted(adapters.values(), key=lambda adapter: adapter.order))


def _worn_by(chains: Iterable[Chain]) -> tuple[Wearable, ...]:
    adapters: dict[int, Wearable] = {}
    for chain in chains:
        record: Overlay | None = chain.__dict__.get("_worn")
        for adapter in record.adapters if record else ():
            adapters[id(adapter)] = adapter
    return tuple(sorted(adapters.values(), key=lambda adapter: adapter.order))


def plan_inject(known: TreeIndex, adapter: Wearable, edits: Iterable[Edit]) -> list[Swap]:
    """Turns edits into swaps without touching the tree.

    Args:
        known: The index of the tree as it is now.
        adapter: The adapter that the edits belong to.
        edits: The edits; their seats may be selected from any part of the tree.

    Raises:
        PlanError: The edits contradict the tree, each other or other worn adapters, or the tree is
            running.
    """
    chains = known.chains()
    root = type(chains[0]).__name__
    check_idle(chains, f"inject {adapter.key}")
    if adapter.key in [other.key for other in _worn_by(chains)]:
        raise PlanError(
            f"{root} already wears an adapter with the key {adapter.key!r}.",
            hint="Give this one another key: key=... at construction.",
        )
    by_spot: dict[ChainRef, dict[str, tuple[Placed, ...]]] = {}
    for position, edit in enumerate(edits):
        suffix, is_exclusive = f"+{edit.name}@{adapter.key}", edit.kind in ("replace", "remove")
        placed: dict[ChainRef, tuple[Placed]] = {}
        for selected in edit.seats:
            seat = selected if selected.spot in known.by_spot else known.seat_of(selected)
            if seat is None:
                raise PlanError(
                    f"{adapter.key} edits {selected.path!r}, which is not a place in {root}.",
                    hint="Select inside edits(self, model), from that model.",
                )
            name, spot = seat.name, seat.spot
            if spot not in placed:
                seats = known.by_spot[spot]
                placed[spot] = (Placed(adapter, position, edit, seats, suffix, is_exclusive),)
                by_spot.setdefault(spot, {})
            names = by_spot[spot]
            names[name] = (*names[name], *placed[spot]) if name in names else placed[spot]
    if not by_spot:
        raise PlanError(
            f"{adapter.key} found nothing to edit in {root}.",
            hint="Print the selection in its edits() to see which seats it asks for.",
        )
    return _folded(chains, by_spot)


def plan_eject(tree: Chain, chains: Sequence[Chain], adapter: Wearable) -> list[Swap]:
    """Returns the swaps that take the edits of an adapter off the given chains.

    Args:
        tree: The root of the tree.
        chains: The chains of the tree that may wear the adapter.
        adapter: The adapter.

    Raises:
        PlanError: A chain was edited by hand, or the tree is running.
    """
    check_idle([tree, *chains], f"eject {adapter.key}")
    swaps: list[Swap] = []
    for chain in chains:
        record = _checked(chain)
        if record is None:
            continue
        if record.adapters == (adapter,):
            swaps.append(Swap(chain, record, None))
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
            swaps.append(Swap(chain, record, fold(chain, record, placed, changed)))
    return swaps


def apply(swaps: Sequence[Swap]) -> list[Swap]:
    """Applies the swaps, all or none.

    Returns:
        The swaps that undo them.

    Raises:
        PlanError: A chain has changed since the swaps were planned.
    """
    global _epoch
    with _swapping:
        for swap in swaps:
            _check_fresh(swap)
        _epoch += 1
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
            hint="Inject and eject one after the other, never inside a callback of another.",
        )


def _wear(chain: Chain, record: Overlay | None, mapping: Mapping[str, nn.Module]) -> None:
    chain.__dict__["_modules"] = mapping
    if record is None:
        chain.__dict__.pop("_worn", None)
    else:
        chain.__dict__["_worn"] = record


def check_idle(chains: Iterable[Chain], action: str) -> None:
    """Raises if a running call involves any of these chains.

    Args:
        chains: The chains.
        action: The attempted action, for the error.

    Raises:
        PlanError: A call is running.
    """
    root = running_root(chains)
    if root is not None:
        raise PlanError(
            f"cannot {action}: {type(root).__name__} is running.",
            hint="Wait until its call has returned; a callback that returns False ends one.",
        )


def _checked(chain: Chain) -> Overlay | None:
    """Returns the overlay of a chain, or None, after checking that nothing else changed the chain.

    Raises:
        PlanError: The children of the chain were edited by hand.
    """
    record: Overlay | None = chain.__dict__.get("_worn")
    if record is None:
        return None
    mapping = chain.__dict__["_modules"]
    if mapping is not record.mapping:
        change = "its mapping of children was replaced"
    elif snapshot(mapping) != record.snapshot or snapshot(record.bare) != record.bare_snapshot:
        now, then = dict(mapping), dict(zip(*record.snapshot, strict=True))
        names = sorted({n for n in now.keys() | then.keys() if now.get(n) is not then.get(n)})
        change = f"its children {', '.join(names) or 'of the bare chain'} were changed"
    else:
        return record
    raise PlanError(
        f"{type(chain).__name__} at {record.path()} was edited by hand while it wears "
        f"{', '.join(record.keys())}: {change}.",
        hint="Undo that edit and try again; edit only bare chains by hand, or write an adapter.",
    )


def _folded(
    chains: Sequence[Chain], by_spot: Mapping[ChainRef, dict[str, tuple[Placed, ...]]]
) -> list[Swap]:
    swaps: list[Swap] = []
    for spot, added in by_spot.items():
        chain = spot.ref()
        assert chain is not None, "the tree is alive while an inject is planned"
        record = _checked(chain)
        placed = added
        if record is not None:
            both = {
                name: (*record.placed.get(name, ()), *several) for name, several in added.items()
            }
            placed = {**record.placed, **both}
        bare = bare_mapping(chain)
        for name, several in added.items():
            seat = several[0].seats[name]
            if type(bare.get(name)) is not seat.kind:
                raise PlanError(
                    f"no {seat.kind.__name__} sits at {seat.path!r} any more.",
                    hint="Edit a tree by hand before injecting an adapter, not inside its edits().",
                )
            if len(placed[name]) > 1:
                _check_seat(name, placed[name])
        swaps.append(Swap(chain, record, fold(chain, record, placed, set(added))))
    planned = {id(swap.chain): swap.after for swap in swaps if swap.after}
    records: list[Overlay | None] = [chain.__dict__.get("_worn") for chain in chains]
    if any(r is not None and r.is_exclusive for r in (*planned.values(), *records)):
        _check_below(chains[0], None, planned, set())
    return swaps


def _check_seat(name: str, placed: Sequence[Placed]) -> None:
    exclusive = [p for p in placed if p.is_exclusive]
    path = placed[0].seats[name].path
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
    chain: Chain, hider: tuple[Placed, Seat] | None, planned: Mapping[int, Overlay], seen: set[int]
) -> None:
    """Raises if an edit is inside a layer that another edit replaces or removes, in either order.

    Args:
        chain: The chain to check, with all below it.
        hider: The edit that replaces or removes a chain around this one, and its seat.
        planned: The overlays to come, by identity of their chains.
        seen: The identities of the chains checked so far; it is filled.

    Raises:
        PlanError: An edit would have no effect.
    """
    seen.add(id(chain))
    record: Overlay | None = planned.get(id(chain)) or chain.__dict__.get("_worn")
    if hider is not None and record is not None:
        name, placed = next(iter(record.placed.items()))
        raise PlanError(
            f"{placed[0].adapter.key} edits {placed[0].seats[name].path!r}, inside "
            f"{hider[1].path!r}, which {hider[0].adapter.key} {hider[0].edit.kind}s.",
            hint="Eject one of them first.",
        )
    for name, child in bare_children(chain).items():
        if isinstance(child, Chain) and id(child) not in seen:
            placed = record.placed.get(name, ()) if record else ()
            replacing = next(((p, p.seats[name]) for p in placed if p.is_exclusive), None)
            _check_below(child, hider or replacing, planned, seen)
