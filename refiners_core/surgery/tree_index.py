"""The index of all places of a tree, cached until a base layer changes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from torch import nn

from refiners_core.errors import SelectionError
from refiners_core.tree.bare_tree import bare_children
from refiners_core.tree.chain import Chain
from refiners_core.tree.role import plain_facts, role_at


class ChainRef:
    """A weak reference to a chain in a tree, and to the chains around it."""

    __slots__ = ("kind", "outer", "ref")

    def __init__(self, chain: Chain, outer: ChainRef | None) -> None:
        self.ref: Final = weakref.ref(chain)
        self.kind: Final = type(chain)
        self.outer: Final = outer


class Seat(NamedTuple):
    """A place in a tree: a place rather than a layer, since one layer may sit in two.

    A seat does not keep its tree alive, so neither do the edits that a tree wears.
    """

    name: str
    """The name of the place in its chain."""
    path: str
    """The dotted path of the place from the root of the selection."""
    kind: type[nn.Module]
    """The class of the base layer."""
    spot: ChainRef
    """The chain that has the place, by weak reference."""

    @property
    def chain(self) -> Chain:
        """The chain that has the place.

        Raises:
            SelectionError: The tree of the seat was garbage-collected.
        """
        chain = self.spot.ref()
        if chain is None:
            raise SelectionError(
                f"the tree around {self.path!r} is gone.", hint="Keep the model in a variable."
            )
        return chain

    @property
    def above(self) -> tuple[Chain, ...]:
        """The living chains from the root of the tree down to `chain`."""
        chains: list[Chain] = []
        spot: ChainRef | None = self.spot
        while spot is not None:
            chain = spot.ref()
            if chain is not None:
                chains.append(chain)
            spot = spot.outer
        return tuple(reversed(chains))

    @property
    def layer(self) -> nn.Module:
        """The base layer of the place, whatever adapters the tree wears.

        Raises:
            SelectionError: The place or its tree no longer exists.
        """
        layer = bare_children(self.chain).get(self.name)
        if layer is None:
            raise SelectionError(
                f"the tree no longer has a layer at {self.path!r}.",
                hint="Select again from the tree.",
            )
        return layer

    @property
    def role(self) -> type[nn.Module]:
        """The class of the layer that the place was built with.

        It stays when a library puts a layer of its own there, such as a quantised one.

        Raises:
            SelectionError: The tree of the seat was garbage-collected.
        """
        role = role_at(self.chain, self.name)
        return self.kind if role is None else role.kind

    @property
    def facts(self) -> Mapping[str, Any]:
        """The numbers and words that describe the base layer, such as `in_features`.

        What a layer of another class does not state is that of the layer that was built there.

        Raises:
            SelectionError: The place or its tree no longer exists.
        """
        role = role_at(self.chain, self.name)
        facts = plain_facts(self.layer)
        return facts if role is None else {**role.facts, **facts}

    def is_a(self, *kinds: type[nn.Module]) -> bool:
        """Whether the base layer, or the layer that was built there, is of one of these classes."""
        return issubclass(self.kind, kinds) or issubclass(self.role, kinds)

    def __repr__(self) -> str:
        return f"Seat({self.path}: {self.kind.__name__})"


class Mapped(NamedTuple):
    """The children of a chain when it was indexed."""

    ref: weakref.ref[Chain]
    names: tuple[str, ...]
    ids: tuple[int, ...]
    """The identities of the children. A new leaf with the name, class and memory address of an old
    one is in the same seat; a new chain differs by its own children."""
    kinds: tuple[type[nn.Module], ...]
    """The classes of the children; torch's parametrisations change that of a living layer."""


@dataclass(frozen=True, eq=False, slots=True)
class TreeIndex:
    """The places of a tree, base layers only.

    Not a tuple, which `torch.export` would take apart at every export.
    """

    seats: tuple[Seat, ...]
    """The seats in order; a chain in two places is entered once."""
    by_spot: dict[ChainRef, dict[str, Seat]]
    """The seats of each chain by name."""
    spots: dict[int, ChainRef]
    """The chains by identity."""
    mapped: tuple[Mapped, ...]
    """The chains, the root first."""
    by_kinds: dict[tuple[type[nn.Module], ...], tuple[Seat, ...]] = field(
        default_factory=dict[tuple[type[nn.Module], ...], tuple[Seat, ...]]
    )
    """A cache of the results of `of`."""
    stand_ins: list[bool] = field(default_factory=list[bool])
    """A cache: for each seat, whether its layer is of another class than the one built there."""

    def of(self, kinds: tuple[type[nn.Module], ...]) -> tuple[Seat, ...]:
        """Returns the seats whose base layer is an instance of one of these classes."""
        if kinds not in self.by_kinds:
            self.by_kinds[kinds] = tuple(
                [seat for seat in self.seats if issubclass(seat.kind, kinds)]
            )
        return self.by_kinds[kinds]

    def in_role(self, kinds: tuple[type[nn.Module], ...]) -> tuple[Seat, ...]:
        """Returns the seats whose base layer, or the layer that it replaced, is an instance of one
        of these classes."""
        if not self.stand_ins:
            self.stand_ins.extend([not issubclass(seat.kind, seat.role) for seat in self.seats])
        known = self.of(kinds)
        if not any(self.stand_ins):
            return known
        ids = {id(seat) for seat in known}
        seats: list[Seat] = []
        around = ""  # the place of a chain that stands in: what is inside is not a place
        for seat, is_stand_in in zip(self.seats, self.stand_ins, strict=True):
            if around and seat.path.startswith(around):
                continue
            is_meant = is_stand_in and issubclass(seat.role, kinds)
            around = f"{seat.path}." if is_meant else ""
            if is_meant or id(seat) in ids:
                seats.append(seat)
        return tuple(seats)

    def chains(self) -> tuple[Chain, ...]:
        """Returns the chains, the root first.

        Raises:
            SelectionError: A chain was garbage-collected.
        """
        chains = tuple([mapped.ref() for mapped in self.mapped])
        if None in chains:
            raise SelectionError(
                "a part of the tree no longer exists.",
                hint="Edit a tree by hand before injecting an adapter, not inside its edits().",
            )
        return chains  # pyright: ignore[reportReturnType]  just checked

    def seat_of(self, seat: Seat) -> Seat | None:
        """Returns a seat of another index of the same layers as a seat of this one; None if its
        chain is not below this root."""
        if seat.spot in self.by_spot:
            return seat
        spot = self.spots.get(id(seat.chain))
        return None if spot is None else self.by_spot[spot].get(seat.name)


_trusted: Final = threading.local()


@contextmanager
def unchanging(tree: Chain) -> Generator[TreeIndex]:
    """Indexes a tree that nothing changes for the length of a `with` block, so that this thread
    does not check the index again at every query."""
    outer: TreeIndex | None = getattr(_trusted, "known", None)
    _trusted.known = tree_index(tree)
    try:
        yield _trusted.known
    finally:
        _trusted.known = outer


def tree_index(tree: Chain) -> TreeIndex:
    """Returns the index of a tree, from the cache if no base layer has changed since."""
    known: TreeIndex | None = tree.__dict__.get("_tree_index")
    if known is not None and known is getattr(_trusted, "known", None):
        return known
    if known is None or not _is_current(known):
        seats: list[Seat] = []
        by_spot: dict[ChainRef, dict[str, Seat]] = {}
        mapped: list[Mapped] = []
        _walk(tree, "", None, set(), seats, by_spot, mapped)
        spots = {id(spot.ref()): spot for spot in by_spot}
        known = TreeIndex(tuple(seats), by_spot, spots, tuple(mapped))
        tree.__dict__["_tree_index"] = known
    return known


def _is_current(known: TreeIndex) -> bool:
    """Whether every chain still has the children that it had when it was indexed."""
    for ref, names, ids, kinds in known.mapped:
        chain = ref()
        if chain is None:
            return False
        now = bare_children(chain)
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
    seats_by_name = by_spot[spot] = dict[str, Seat]()
    mapped.append(
        Mapped(spot.ref, tuple(children), tuple(map(id, layers)), tuple(map(type, layers)))
    )
    for name, child in children.items():
        path = f"{prefix}{name}"
        seats_by_name[name] = Seat(name, path, type(child), spot)
        seats.append(seats_by_name[name])
        if isinstance(child, Chain) and id(child) not in seen:
            _walk(child, f"{path}.", spot, seen, seats, by_spot, mapped)
