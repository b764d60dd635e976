"""From edits to what a tree wears: plan everything, then swap mappings of children.

A tree is its base plus the set of adapters it wears. Each touched chain keeps its bare mapping and,
per name, the edits of the worn adapters; the mapping it wears is folded from these. Ejecting drops
one adapter's edits and folds again, so nobody writes the way back, and the order of injects and
ejects leaves no trace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from torch import nn

from refiners_core.chain import Chain, bare_children
from refiners_core.errors import PlanError
from refiners_core.layer import running_root
from refiners_core.selection import Edit, Seat, select

if TYPE_CHECKING:
    from refiners_core.adapter import Adapter

_STAGES: Final = {"inputs": 0, "branch": 1, "output": 2}
_swapping: Final = threading.Lock()


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

    def path(self) -> str:
        """Returns the path of the chain from the root that an adapter was injected into."""
        seat = next(iter(self.placed.values()))[0].edit.seat
        return seat.path.removesuffix(seat.name).removesuffix(".") or "the root"

    def hidden(self) -> tuple[nn.Module, ...]:
        """Returns the base layers that adapters stand in for: they do not run, but are still
        there."""
        return tuple(
            [
                self.bare[name]
                for name, folded in self.folded.items()
                if not any(
                    part is self.bare[name]
                    for _, layer in folded.entries
                    for part in layer.modules()
                )
            ]
        )

    def maker(self, layer: nn.Module) -> str | None:
        """Returns the key of the adapter that made a layer of this chain, if one did."""
        made = (folded.made.get(id(layer)) for folded in self.folded.values())
        return next((key for _, key in filter(None, made)), None)


class Swap(NamedTuple):
    """The only effect that there is: a chain wears something, or is bare again."""

    chain: Chain
    before: Worn | None
    """What the chain wore when this was planned."""
    after: Worn | None


Places = Mapping[tuple[int, str], Seat]
"""Every seat of a tree, by the identity of its chain and its name there."""


def places(tree: Chain) -> Places:
    """Returns the seats of a tree, each with its path from this very root."""
    return {(id(seat.chain), seat.name): seat for seat in select(tree)}


def worn(tree: Chain) -> tuple[Adapter, ...]:
    """Returns the adapters that a tree wears anywhere, sorted by name and serial number."""
    found: dict[int, Adapter] = {}
    for chain in _chains(tree):
        record: Worn | None = chain.__dict__.get("_worn")
        for several in record.placed.values() if record else ():
            found.update((id(p.adapter), p.adapter) for p in several)
    return tuple(sorted(found.values(), key=lambda adapter: adapter.order))


def plan_inject(
    tree: Chain, adapter: Adapter, edits: Iterable[Edit], known: Places | None = None
) -> list[Swap]:
    """Turns edits into swaps without touching the tree.

    Args:
        tree: The root.
        adapter: Who says the edits.
        edits: The edits; each is given the seat's path from this root, however it was selected.
        known: The places of the tree, where the caller has them already.

    Raises:
        PlanError: The edits contradict the tree, each other or what it wears; or a call of it is
            running.
    """
    known = places(tree) if known is None else known
    check_idle(_chains(tree), f"inject {adapter.key}")
    for other in worn(tree):
        if other.key == adapter.key:
            raise PlanError(
                f"{type(tree).__name__} already wears an adapter with the key {adapter.key!r}.",
                hint="Give this one another key: key=... at construction.",
            )
    by_chain: dict[int, tuple[Chain, dict[str, list[Placed]]]] = {}
    for position, edit in enumerate(edits):
        chain = edit.seat.chain
        seat = known.get((id(chain), edit.seat.name))
        if seat is None:
            raise PlanError(
                f"{adapter.key} edits {edit.seat.path!r}, which is no place in "
                f"{type(tree).__name__}.",
                hint="Select from the tree that is passed to edits(), at the time it is passed.",
            )
        _, names = by_chain.setdefault(id(chain), (chain, {}))
        placed = Placed(adapter, position, edit._replace(seat=seat))
        names.setdefault(seat.name, []).append(placed)
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
            after = _fold(chain, record, placed, changed) if placed else None
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
                _wear(chain, after, after.mapping if after else _bare_mapping(chain))
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
        or _bare_mapping(swap.chain) is not record.bare
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


def _bare_mapping(chain: Chain) -> dict[str, nn.Module]:
    record: Worn | None = chain.__dict__.get("_worn")
    return record.bare if record else chain.__dict__["_modules"]


def _chains(tree: Chain) -> Iterator[Chain]:
    yield tree
    for seat in select(tree):
        layer = seat.layer
        if isinstance(layer, Chain):
            yield layer


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
    tree: Chain, by_chain: Mapping[int, tuple[Chain, Mapping[str, Sequence[Placed]]]]
) -> list[Swap]:
    swaps: list[Swap] = []
    for chain, added in by_chain.values():
        record = _checked(chain)
        placed = dict(record.placed) if record else {}
        for name, several in added.items():
            placed[name] = (*placed.get(name, ()), *several)
            _check_seat(placed[name])
        swaps.append(Swap(chain, record, _fold(chain, record, placed, set(added))))
    _check_subtrees(tree, {id(swap.chain): swap.after for swap in swaps if swap.after})
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
        for label, worn_layer in folded[name].entries if name in folded else ((name, layer),):
            if label in mapping:
                raise PlanError(
                    f"two edits would name a layer of {type(chain).__name__} {label!r}.",
                    hint='Give them names of their own, e.g. wrap(..., name="lora").',
                )
            mapping[label] = worn_layer
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
    # The adapter whose layers come first before a seat has its layers come last after it.
    for p in sorted(ordered, key=lambda p: (p.adapter.order, -p.position), reverse=True):
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
