"""What one chain wears, folded from the edits of the adapters worn there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from torch import nn

from refiners_core.chain import Chain
from refiners_core.errors import PlanError
from refiners_core.selection import Edit

if TYPE_CHECKING:
    from refiners_core.adapter import Adapter

_STAGES: Final = {"inputs": 0, "branch": 1, "output": 2}


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

    @property
    def is_exclusive(self) -> bool:
        """Whether the base layer no longer runs: only one adapter may ask for that."""
        return self.edit.kind in ("replace", "remove")


Entry = tuple[str, nn.Module]


class Folded(NamedTuple):
    """What one edited seat became."""

    entries: tuple[Entry, ...]
    """Names and layers, in order; none where the seat is removed."""
    made: Mapping[int, tuple[nn.Module, str]]
    """The layers that adapters made for it and the keys of those adapters, by the layers' ids."""


@dataclass(frozen=True, eq=False, slots=True)
class Worn:
    """What one chain wears.

    No tuple: `torch.export` takes tuples in attributes of modules apart and puts copies back.
    """

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
    is_exclusive: bool
    """Whether an adapter replaces or removes a base layer here."""
    covered: tuple[tuple[nn.Module, str], ...]
    """The base layers that are no child any more, because something stands around or for them."""

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


def bare_mapping(chain: Chain) -> dict[str, nn.Module]:
    """Returns the very mapping that a chain has while it is bare."""
    record: Worn | None = chain.__dict__.get("_worn")
    return record.bare if record else chain.__dict__["_modules"]


def fold(
    chain: Chain, record: Worn | None, placed: Mapping[str, tuple[Placed, ...]], changed: set[str]
) -> Worn:
    """Returns what a chain wears with these edits; seats that did not change keep their very
    layers."""
    bare = bare_mapping(chain)
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
    is_exclusive = any(p.is_exclusive for several in placed.values() for p in several)
    snapshots = tuple(mapping.items()), tuple(bare.items())
    here = {id(layer) for layer in mapping.values()}
    covered = tuple([(bare[name], name) for name in placed if id(bare[name]) not in here])
    return Worn(bare, placed, folded, mapping, *snapshots, is_exclusive, covered)


def _worn_seat(
    layer: nn.Module, placed: Sequence[Placed], made: dict[int, tuple[nn.Module, str]]
) -> Iterator[Entry]:
    if len(placed) == 1 and placed[0].edit.kind == "wrap":  # nearly always
        (p,) = placed
        yield _label(p), _made(p, made, p.edit.make(layer, p.edit.seat))
        return
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
