"""From edits to what a tree wears: plan everything, then swap mappings of children.

A tree is its base plus the set of adapters it wears. Each touched chain keeps its bare mapping and,
per name, the edits of the worn adapters; the mapping it wears is folded from these. Ejecting drops
one adapter's edits and folds again, so nobody writes the way back, and the order of injects and
ejects leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from refiners_core.chain import Chain, bare_children
from refiners_core.errors import PlanError
from refiners_core.selection import Edit, select

if TYPE_CHECKING:
    from refiners_core.adapter import Adapter

_STAGES = {"inputs": 0, "branch": 1, "output": 2}


class Placed(NamedTuple):
    """An edit and the adapter that says it."""

    adapter: Adapter
    position: int
    edit: Edit

    @property
    def order(self) -> tuple[Any, ...]:
        """What makes the fold independent of the order of injects: stage, adapter, position within
        it."""
        return (_STAGES[self.edit.stage], self.adapter.order, self.position)


Entry = tuple[str, nn.Module]


class Folded(NamedTuple):
    """What one edited seat became."""

    entries: tuple[Entry, ...]
    """Names and layers, in order; none where the seat is removed."""
    made: Mapping[int, tuple[nn.Module, str]]
    """The layers that adapters made for it and the keys of those adapters, by the layers' ids."""


@dataclass(frozen=True)
class Worn:
    """What one chain wears."""

    bare: dict[str, nn.Module]
    """The very mapping of the bare chain, put back when nothing is worn any more."""
    placed: Mapping[str, tuple[Placed, ...]]
    """The edits per name of the bare mapping."""
    folded: Mapping[str, Folded]
    """What each edited name became."""
    mapping: dict[str, nn.Module]
    """The mapping that the chain wears."""
    snapshot: tuple[Entry, ...]
    """The contents of that mapping when it was put on."""
    bare_snapshot: tuple[Entry, ...]
    """The contents of the bare mapping at that time."""

    def keys(self) -> list[str]:
        """Returns the keys of the adapters worn here, sorted."""
        return sorted({p.adapter.key for several in self.placed.values() for p in several})

    def maker(self, layer: nn.Module) -> str | None:
        """Returns the key of the adapter that made a layer of this chain, if one did."""
        made = (folded.made.get(id(layer)) for folded in self.folded.values())
        return next((key for _, key in filter(None, made)), None)


Swap = tuple[Chain, Worn | None]
"""The only effect that there is: a chain wears something, or is bare again."""


def worn(tree: Chain) -> tuple[Adapter, ...]:
    """Returns the adapters that a tree wears anywhere, sorted by name and serial number."""
    found: dict[int, Adapter] = {}
    for chain in _chains(tree):
        record: Worn | None = chain.__dict__.get("_worn")
        for several in record.placed.values() if record else ():
            found.update((id(p.adapter), p.adapter) for p in several)
    return tuple(sorted(found.values(), key=lambda adapter: adapter.order))


def plan_inject(tree: Chain, adapter: Adapter, edits: Iterable[Edit]) -> list[Swap]:
    """Turns edits into swaps without touching the tree.

    Raises:
        PlanError: The edits contradict the tree, each other or what it wears; or a call of it is
        running.
    """
    chains = list(_chains(tree))
    _check_idle(chains, f"inject {adapter.key}")
    for other in worn(tree):
        if other.key == adapter.key:
            raise PlanError(
                f"{type(tree).__name__} already wears an adapter with the key {adapter.key!r}.",
                hint="Give this one another key: key=... at construction.",
            )
    known = {id(chain) for chain in chains}
    by_chain: dict[int, tuple[Chain, dict[str, list[Placed]]]] = {}
    for position, edit in enumerate(edits):
        seat = edit.seat
        if id(seat.chain) not in known or seat.name not in bare_children(seat.chain):
            raise PlanError(
                f"{adapter.key} edits {seat.path!r}, which is no place in {type(tree).__name__}.",
                hint="Select from the tree that is passed to edits(), at the time it is passed.",
            )
        _, names = by_chain.setdefault(id(seat.chain), (seat.chain, {}))
        names.setdefault(seat.name, []).append(Placed(adapter, position, edit))
    if not by_chain:
        raise PlanError(
            f"{adapter.key} found nothing to edit in {type(tree).__name__}.",
            hint="Print its selection to see what it looked for.",
        )
    return _folded(tree, by_chain)


def plan_eject(tree: Chain, chains: Sequence[Chain], adapter: Adapter) -> list[Swap]:
    """Returns the swaps after which these chains of a tree wear no edit of an adapter.

    Raises:
        PlanError: A chain was edited by hand, or a call of the tree is running.
    """
    _check_idle(_chains(tree), f"eject {adapter.key}")
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
        swaps.append((chain, _fold(chain, record, placed, changed) if placed else None))
    return swaps


def apply(swaps: Sequence[Swap]) -> None:
    """Makes the swaps, all of them or none."""
    before = [
        (chain, chain.__dict__.get("_worn"), chain.__dict__["_modules"]) for chain, _ in swaps
    ]
    try:
        for chain, record in swaps:
            _wear(chain, record, record.mapping if record else _bare_mapping(chain))
    except BaseException:
        for chain, record, mapping in before:
            _wear(chain, record, mapping)
        raise


def _wear(chain: Chain, record: Worn | None, mapping: Mapping[str, nn.Module]) -> None:
    chain.__dict__["_modules"] = mapping
    if record is None:
        chain.__dict__.pop("_worn", None)
    else:
        chain.__dict__["_worn"] = record


def _bare_mapping(chain: Chain) -> dict[str, nn.Module]:
    record: Worn | None = chain.__dict__.get("_worn")
    return record.bare if record else chain.__dict__["_modules"]


def _chains(tree: Chain) -> Iterator[Chain]:
    yield tree
    for seat in select(tree):
        layer = seat.layer
        if isinstance(layer, Chain):
            yield layer


def _check_idle(chains: Iterable[Chain], what: str) -> None:
    for chain in chains:
        if chain.__dict__.get("_calls"):
            raise PlanError(
                f"cannot {what}: {type(chain).__name__} is running.",
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
        f"{type(chain).__name__} was edited by hand while it wears "
        f"{', '.join(record.keys())}: {what}.",
        hint="Undo that edit and try again; edit by hand only what is bare, or write an adapter.",
    )


def _folded(
    tree: Chain, by_chain: Mapping[int, tuple[Chain, Mapping[str, Sequence[Placed]]]]
) -> list[Swap]:
    swaps: list[Swap] = []
    for chain, added in by_chain.values():
        record = _checked(chain)
        placed = dict(record.placed) if record else {}
        for name, several in added.items():
            placed[name] = (*placed.get(name, ()), *several)
            _check_seat(placed[name])
        swaps.append((chain, _fold(chain, record, placed, set(added))))
    _check_subtrees(tree, {id(chain): new for chain, new in swaps if new})
    return swaps


def _check_seat(placed: Sequence[Placed]) -> None:
    exclusive = [p for p in placed if p.edit.kind in ("replace", "remove")]
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


def _check_subtrees(tree: Chain, planned: Mapping[int, Worn]) -> None:
    """Refuses edits inside what a worn or planned edit replaces or removes, whichever came
    first."""
    _check_below(tree, "", None, planned, set())


def _check_below(
    chain: Chain, prefix: str, hider: Placed | None, planned: Mapping[int, Worn], seen: set[int]
) -> None:
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
            replacing = next((p for p in placed if p.edit.kind in ("replace", "remove")), None)
            _check_below(child, f"{prefix}{name}.", hider or replacing, planned, seen)


def _fold(
    chain: Chain, record: Worn | None, placed: Mapping[str, tuple[Placed, ...]], changed: set[str]
) -> Worn:
    """Returns what a chain wears with these edits; seats that did not change keep their very
    layers."""
    bare = _bare_mapping(chain)
    folded: dict[str, Folded] = {}
    for name in placed:
        if record is not None and name not in changed:
            folded[name] = record.folded[name]
        else:
            made: dict[int, tuple[nn.Module, str]] = {}
            folded[name] = Folded(tuple(_worn_seat(bare[name], placed[name], made)), made)
    mapping: dict[str, nn.Module] = {}
    for name, layer in bare.items():
        mapping.update(folded[name].entries if name in folded else ((name, layer),))
    return Worn(bare, placed, folded, mapping, tuple(mapping.items()), tuple(bare.items()))


def _worn_seat(
    layer: nn.Module, placed: Sequence[Placed], made: dict[int, tuple[nn.Module, str]]
) -> Iterator[Entry]:
    ordered = sorted(placed, key=lambda p: p.order)
    for p in ordered:
        if p.edit.kind == "before":
            yield _label(p), _made(p, made, p.edit.make(p.edit.seat))
    label: str | None = ordered[0].edit.seat.name
    inner = layer
    for p in ordered:
        if p.edit.kind == "replace":
            label, inner = _label(p), _made(p, made, p.edit.make(p.edit.seat))
        elif p.edit.kind == "remove":
            label = None
    for p in ordered:
        if p.edit.kind == "wrap":
            label, inner = _label(p), _made(p, made, p.edit.make(inner, p.edit.seat))
    if label is not None:
        yield label, inner
    for p in reversed(ordered):
        if p.edit.kind == "after":
            yield _label(p), _made(p, made, p.edit.make(p.edit.seat))


def _label(placed: Placed) -> str:
    return f"{placed.edit.seat.name}+{placed.edit.name}@{placed.adapter.key}"


def _made(placed: Placed, made: dict[int, tuple[nn.Module, str]], layer: object) -> nn.Module:
    if not isinstance(layer, nn.Module):
        raise PlanError(
            f"{placed.adapter.key} made a {type(layer).__name__} for {placed.edit.seat.path!r}.",
            hint="What wrap, before, after or replace is given must return the layer to run there.",
        )
    made[id(layer)] = (layer, placed.adapter.key)
    return layer
