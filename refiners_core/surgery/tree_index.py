"""Every place of a tree, walked once and remembered until the tree is another."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from torch import nn

from refiners_core.errors import SelectionError
from refiners_core.tree.bare_tree import bare_children
from refiners_core.tree.chain import Chain


class ChainRef:
    """A chain in a tree, and the chains around it; it keeps none of them alive."""

    __slots__ = ("kind", "outer", "ref")

    def __init__(self, chain: Chain, outer: ChainRef | None) -> None:
        self.ref: Final = weakref.ref(chain)
        self.kind: Final = type(chain)
        self.outer: Final = outer


class Seat(NamedTuple):
    """One place in a tree: a place, not a layer, since one layer may sit in two.

    It does not keep its tree alive, so that what a tree wears never does either.
    """

    name: str
    """The name of the place in its chain."""
    path: str
    """The dotted path of the place from the root of the selection."""
    kind: type[nn.Module]
    """The class of the base layer."""
    spot: ChainRef
    """Where in the tree its chain is."""

    @property
    def chain(self) -> Chain:
        """The chain that has the place.

        Raises:
            SelectionError: Its tree is gone.
        """
        chain = self.spot.ref()
        if chain is None:
            raise SelectionError(
                f"the tree around {self.path!r} is gone.", hint="Keep the model in a variable."
            )
        return chain

    @property
    def above(self) -> tuple[Chain, ...]:
        """The living chains from the root down to `chain`."""
        found: list[Chain] = []
        spot: ChainRef | None = self.spot
        while spot is not None:
            chain = spot.ref()
            if chain is not None:
                found.append(chain)
            spot = spot.outer
        return tuple(reversed(found))

    @property
    def layer(self) -> nn.Module:
        """The base layer of the place, whatever adapters it wears.

        Raises:
            SelectionError: The place is gone.
        """
        layer = bare_children(self.chain).get(self.name)
        if layer is None:
            raise SelectionError(
                f"nothing sits at {self.path!r} any more.", hint="Select again from the tree."
            )
        return layer

    def __repr__(self) -> str:
        return f"Seat({self.path}: {self.kind.__name__})"


class Mapped(NamedTuple):
    """The children of a chain when it was walked."""

    ref: weakref.ref[Chain]
    names: tuple[str, ...]
    ids: tuple[int, ...]
    """Their identities, for comparison: a leaf that takes another's place, name, class and memory
    is in the same seat; a chain that does is told by what it was walked through."""
    kinds: tuple[type[nn.Module], ...]
    """Their classes: torch's parametrisations change that of a living layer."""


@dataclass(frozen=True, eq=False, slots=True)
class TreeIndex:
    """What a walk over a tree found: base layers only.

    No tuple, for `torch.export` would take it apart at every export.
    """

    seats: tuple[Seat, ...]
    """In order; a chain that sits in two places is entered once."""
    by_spot: dict[ChainRef, dict[str, Seat]]
    """The seats of each chain by their names."""
    spots: dict[int, ChainRef]
    """The chains by their identities."""
    mapped: tuple[Mapped, ...]
    """The chains, the root first."""
    found: dict[tuple[type[nn.Module], ...], tuple[Seat, ...]] = field(
        default_factory=dict[tuple[type[nn.Module], ...], tuple[Seat, ...]]
    )
    """What was asked for before, by kinds."""

    def of(self, kinds: tuple[type[nn.Module], ...]) -> tuple[Seat, ...]:
        """Returns the seats whose base layer is of one of these kinds."""
        if kinds not in self.found:
            self.found[kinds] = tuple([seat for seat in self.seats if issubclass(seat.kind, kinds)])
        return self.found[kinds]

    def chains(self) -> tuple[Chain, ...]:
        """Returns the chains, the root first.

        Raises:
            SelectionError: One is gone.
        """
        found = tuple([mapped.ref() for mapped in self.mapped])
        if None in found:
            raise SelectionError(
                "a part of the tree is gone since it was looked at.",
                hint="Edit a tree by hand before an adapter says its edits, not while it does.",
            )
        return found  # pyright: ignore[reportReturnType]  just checked

    def own(self, seat: Seat) -> Seat | None:
        """Returns a seat as it is seen from this root; none where it is not below."""
        if seat.spot in self.by_spot:
            return seat
        spot = self.spots.get(id(seat.chain))
        return None if spot is None else self.by_spot[spot].get(seat.name)


_trusted: Final = threading.local()


@contextmanager
def unchanging(tree: Chain) -> Generator[TreeIndex]:
    """Surveys a tree that nobody touches for the length of a `with` block, so that this thread
    need not compare it again at every question."""
    outer: TreeIndex | None = getattr(_trusted, "known", None)
    _trusted.known = tree_index(tree)
    try:
        yield _trusted.known
    finally:
        _trusted.known = outer


def tree_index(tree: Chain) -> TreeIndex:
    """Returns every place below a tree, from memory if no base layer has changed since."""
    known: TreeIndex | None = tree.__dict__.get("_tree_index")
    if known is not None and known is getattr(_trusted, "known", None):
        return known
    if known is None or not _is_as_then(known):
        seats: list[Seat] = []
        by_spot: dict[ChainRef, dict[str, Seat]] = {}
        mapped: list[Mapped] = []
        _walk(tree, "", None, set(), seats, by_spot, mapped)
        spots = {id(spot.ref()): spot for spot in by_spot}
        known = TreeIndex(tuple(seats), by_spot, spots, tuple(mapped))
        tree.__dict__["_tree_index"] = known
    return known


def _is_as_then(known: TreeIndex) -> bool:
    """Whether every chain still has the very children that it had when it was walked."""
    for ref, names, ids, kinds in known.mapped:
        chain = ref()
        if chain is None:
            return False
        own = chain.__dict__
        worn = own.get("_worn")
        now = own["_modules"] if worn is None else worn.bare
        layers = now.values()
        if (
            tuple(now) != names
            or tuple(map(id, layers)) != ids
            or tuple(map(type, layers)) != kinds
        ):
            return False
    return True


def _walk(
    chain: Chain,
    prefix: str,
    outer: ChainRef | None,
    seen: set[int],
    seats: list[Seat],
    by_spot: dict[ChainRef, dict[str, Seat]],
    mapped: list[Mapped],
) -> None:
    seen.add(id(chain))
    spot = ChainRef(chain, outer)
    children = bare_children(chain)
    layers = children.values()
    here = by_spot[spot] = dict[str, Seat]()
    mapped.append(
        Mapped(spot.ref, tuple(children), tuple(map(id, layers)), tuple(map(type, layers)))
    )
    for name, child in children.items():
        path = f"{prefix}{name}"
        here[name] = Seat(name, path, type(child), spot)
        seats.append(here[name])
        if isinstance(child, Chain) and id(child) not in seen:
            _walk(child, f"{path}.", spot, seen, seats, by_spot, mapped)
