"""Every place of a tree, walked once and remembered until the tree is another."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from torch import nn

from refiners_core.bare import bare_children
from refiners_core.chain import Chain
from refiners_core.errors import SelectionError


class Spot:
    """A chain in a tree, and the chains around it; it keeps none of them alive."""

    __slots__ = ("kind", "outer", "ref")

    def __init__(self, chain: Chain, outer: Spot | None) -> None:
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
    spot: Spot
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
        spot: Spot | None = self.spot
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
    children: tuple[weakref.ref[nn.Module], ...]
    kinds: tuple[type[nn.Module], ...]
    """Their classes: torch's parametrisations change that of a living layer."""


@dataclass(frozen=True, eq=False, slots=True)
class Survey:
    """What a walk over a tree found: base layers only.

    No tuple, for `torch.export` would take it apart at every export.
    """

    seats: tuple[Seat, ...]
    """In order; a chain that sits in two places is entered once."""
    places: dict[tuple[int, str], Seat]
    """The seats by the identity of their chain and their name there."""
    mapped: tuple[Mapped, ...]
    """The chains, the root first."""

    def chains(self) -> Iterator[Chain]:
        """Yields the chains, the root first."""
        for mapped in self.mapped:
            chain = mapped.ref()
            assert chain is not None, "a survey is asked while its tree is alive"
            yield chain


def survey(tree: Chain) -> Survey:
    """Returns every place below a tree, from memory if no base layer has changed since."""
    known: Survey | None = tree.__dict__.get("_survey")
    if known is None or not _is_as_then(known):
        seats: list[Seat] = []
        mapped: list[Mapped] = []
        _walk(tree, "", None, set(), seats, mapped)
        places = {(id(seat.spot.ref()), seat.name): seat for seat in seats}
        known = Survey(tuple(seats), places, tuple(mapped))
        tree.__dict__["_survey"] = known
    return known


def _is_as_then(known: Survey) -> bool:
    """Whether every chain still has the very children that it had when it was walked."""
    for ref, names, children, kinds in known.mapped:
        chain = ref()
        if chain is None:
            return False
        now = bare_children(chain)
        if tuple(now) != names:
            return False
        for child, then, kind in zip(now.values(), children, kinds, strict=True):
            if then() is not child or type(child) is not kind:
                return False
    return True


def _walk(
    chain: Chain,
    prefix: str,
    outer: Spot | None,
    seen: set[int],
    seats: list[Seat],
    mapped: list[Mapped],
) -> None:
    seen.add(id(chain))
    spot = Spot(chain, outer)
    children = bare_children(chain)
    refs = tuple([weakref.ref(child) for child in children.values()])
    kinds = tuple(map(type, children.values()))
    mapped.append(Mapped(spot.ref, tuple(children), refs, kinds))
    for name, child in children.items():
        path = f"{prefix}{name}"
        seats.append(Seat(name, path, type(child), spot))
        if isinstance(child, Chain) and id(child) not in seen:
            _walk(child, f"{path}.", spot, seen, seats, mapped)
