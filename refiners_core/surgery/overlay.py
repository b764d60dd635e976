"""What one chain wears, folded from the edits of the adapters worn there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from torch import nn

from refiners_core.errors import PlanError
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.tree_index import Seat
from refiners_core.surgery.wearable import Wearable
from refiners_core.tree.chain import Chain

_STAGES: Final = {"inputs": 0, "branch": 1, "output": 2}

Snapshot = tuple[tuple[str, ...], tuple[nn.Module, ...]]
"""Names and layers of a mapping of children."""


class Placed(NamedTuple):
    """An edit of seats of one chain, and the adapter that says it."""

    adapter: Wearable
    position: int
    """Which of the adapter's edits it is."""
    edit: Edit
    seats: Mapping[str, Seat]
    """The seats of the chain by their names, as seen from the root of the inject."""
    suffix: str
    """What the names of the layers that it makes end with."""
    is_exclusive: bool
    """Whether the base layer no longer runs: only one adapter may ask for that."""

    @property
    def order(self) -> tuple[Any, ...]:
        """What makes the fold independent of the order of injects: stage, adapter, position within
        it."""
        return (_STAGES[self.edit.stage], self.adapter.order, self.position)

    def made(self, name: str, *inner: nn.Module) -> nn.Module:
        """Returns the layer that the edit makes for a seat.

        Raises:
            PlanError: It makes something else.
        """
        layer: Any = self.edit.make(*inner, self.seats[name])
        if not isinstance(layer, nn.Module):
            raise PlanError(
                f"{self.adapter.key} made a {type(layer).__name__} for {self.seats[name].path!r}.",
                hint="What wrap, before, after or replace is given must return the layer to run "
                "there.",
            )
        return layer


Entry = tuple[str, nn.Module]


@dataclass(eq=False, slots=True)
class Overlay:
    """What one chain wears; nobody changes it afterwards.

    No tuple: `torch.export` takes tuples in attributes of modules apart and puts copies back. Not
    frozen, which would triple the time that it takes to make one.
    """

    bare: dict[str, nn.Module]
    """The very mapping of the bare chain, put back when nothing is worn any more."""
    placed: Mapping[str, tuple[Placed, ...]]
    """The edits per name of the bare mapping."""
    adapters: tuple[Wearable, ...]
    """Who says them, each once."""
    folded: Mapping[str, tuple[Entry, ...]]
    """What each edited name became: names and layers in order, none where the seat is removed."""
    inner: Mapping[str, tuple[tuple[nn.Module, str], ...]]
    """Where several edits meet in a seat: the layers that were made for it, and whose they are."""
    mapping: dict[str, nn.Module]
    """The mapping that the chain wears."""
    snapshot: Snapshot
    """The contents of that mapping when it was put on."""
    bare_snapshot: Snapshot
    """The contents of the bare mapping at that time."""
    is_exclusive: bool
    """Whether an adapter replaces or removes a base layer here."""
    covered: tuple[tuple[nn.Module, str], ...]
    """The base layers that are no child any more, because something stands around or for them."""

    def keys(self) -> list[str]:
        """Returns the keys of the adapters worn here, sorted."""
        return sorted(adapter.key for adapter in self.adapters)

    def path(self) -> str:
        """Returns the path of the chain from the root that an adapter was injected into."""
        name, placed = next(iter(self.placed.items()))
        return placed[0].seats[name].path.removesuffix(name).removesuffix(".") or "the root"

    def hidden(self) -> tuple[nn.Module, ...]:
        """Returns the base layers that adapters stand in for: they do not run, but are still
        there."""
        return tuple(
            [
                self.bare[name]
                for name, entries in self.folded.items()
                if not any(
                    part is self.bare[name] for _, layer in entries for part in layer.modules()
                )
            ]
        )

    def maker(self, layer: nn.Module) -> str | None:
        """Returns the key of the adapter that made a layer of this chain, if one did."""
        for several in self.inner.values():
            for part, key in several:
                if part is layer:
                    return key
        for name, entries in self.folded.items():
            for label, part in entries:
                if part is layer and label != name:
                    return label.rpartition("@")[2]
        return None


class Swap(NamedTuple):
    """The only effect that there is: a chain wears something, or is bare again."""

    chain: Chain
    before: Overlay | None
    """What the chain wore when this was planned."""
    after: Overlay | None


def bare_mapping(chain: Chain) -> dict[str, nn.Module]:
    """Returns the very mapping that a chain has while it is bare."""
    record: Overlay | None = chain.__dict__.get("_worn")
    return record.bare if record else chain.__dict__["_modules"]


def snapshot(mapping: Mapping[str, nn.Module]) -> Snapshot:
    """Returns the contents of a mapping, for comparison."""
    return tuple(mapping), tuple(mapping.values())


def fold(
    chain: Chain,
    record: Overlay | None,
    placed: Mapping[str, tuple[Placed, ...]],
    changed: set[str],
) -> Overlay:
    """Returns what a chain wears with these edits; seats that did not change keep their very
    layers."""
    bare = bare_mapping(chain)
    folded: dict[str, tuple[Entry, ...]] = {}
    inner: dict[str, tuple[tuple[nn.Module, str], ...]] = {}
    mapping: dict[str, nn.Module] = {}
    said = {id(p): p for several in placed.values() for p in several}
    for name, layer in bare.items():
        several = placed.get(name)
        if several is None:
            entries: tuple[Entry, ...] = ((name, layer),)
        elif record is not None and name not in changed:
            entries = folded[name] = record.folded[name]
            if name in record.inner:
                inner[name] = record.inner[name]
        elif len(several) == 1 and several[0].edit.kind == "wrap":  # nearly always
            p = several[0]
            entries = folded[name] = ((name + p.suffix, p.made(name, layer)),)
        else:
            made: list[tuple[nn.Module, str]] = []
            entries = folded[name] = tuple(_worn_seat(name, layer, several, made))
            inner[name] = tuple(made)
        for label, worn_layer in entries:
            if label in mapping:
                raise PlanError(
                    f"two edits would name a layer of {type(chain).__name__} {label!r}.",
                    hint='Give them names of their own, e.g. wrap(..., name="lora").',
                )
            mapping[label] = worn_layer
    here = set(map(id, mapping.values()))
    return Overlay(
        bare=bare,
        placed=placed,
        adapters=tuple({id(p.adapter): p.adapter for p in said.values()}.values()),
        folded=folded,
        inner=inner,
        mapping=mapping,
        snapshot=snapshot(mapping),
        bare_snapshot=snapshot(bare),
        is_exclusive=any(p.is_exclusive for p in said.values()),
        covered=tuple([(bare[name], name) for name in folded if id(bare[name]) not in here]),
    )


def _worn_seat(
    name: str, layer: nn.Module, placed: Sequence[Placed], made: list[tuple[nn.Module, str]]
) -> Iterator[Entry]:
    def entry(p: Placed, *inner: nn.Module) -> Entry:
        one = p.made(name, *inner)
        made.append((one, p.adapter.key))
        return name + p.suffix, one

    ordered = sorted(placed, key=lambda p: p.order)
    for p in ordered:
        if p.edit.kind == "before":
            yield entry(p)
    here: Entry | None = name, layer
    for p in ordered:
        if p.edit.kind == "replace":
            here = entry(p)
        elif p.edit.kind == "remove":
            here = None
    for p in ordered:
        if p.edit.kind == "wrap":
            assert here is not None, "planning refuses wraps of what is removed"
            here = entry(p, here[1])
    if here is not None:
        yield here
    # The adapter whose layers come first before a seat has its layers come last after it.
    for p in sorted(ordered, key=lambda p: (p.adapter.order, -p.position), reverse=True):
        if p.edit.kind == "after":
            yield entry(p)
