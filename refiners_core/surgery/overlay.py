"""The overlay of one chain: its children as folded from the edits of the worn adapters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from torch import nn

from refiners_core.errors import PlanError
from refiners_core.surgery.abreast import Abreast, Given
from refiners_core.surgery.placed import Entry, Made, Placed
from refiners_core.surgery.wearable import Wearable
from refiners_core.tree.chain import Chain

Snapshot = tuple[tuple[str, ...], tuple[nn.Module, ...]]
"""The names and layers of a mapping of children."""


@dataclass(eq=False, slots=True)
class Overlay:
    """The edits that one chain wears and the children that result; never changed once made.

    Not a tuple: `torch.export` takes tuples in attributes of modules apart and puts copies back.
    Not frozen: that would triple the time to construct one.
    """

    bare: dict[str, nn.Module]
    """The mapping of the bare chain itself, put back when the last adapter is ejected."""
    placed: Mapping[str, tuple[Placed, ...]]
    """The edits by name of the bare mapping."""
    adapters: tuple[Wearable, ...]
    """The adapters of these edits, each once."""
    folded: Mapping[str, tuple[Entry, ...]]
    """The names and layers that run in the place of each edited name, in order; empty if the seat
    is removed."""
    inner: Mapping[str, tuple[Made, ...]]
    """For a seat with several edits, or one that is not a wrap: the layers made for it."""
    mapping: dict[str, nn.Module]
    """The mapping of children while the overlay is worn."""
    snapshot: Snapshot
    """The contents of that mapping when the overlay was made."""
    bare_snapshot: Snapshot
    """The contents of the bare mapping at the same time."""
    is_exclusive: bool
    """Whether an edit replaces or removes a base layer of the chain."""
    covered: tuple[tuple[nn.Module, str], ...]
    """The base layers that are no longer children, because they are wrapped, replaced or removed,
    each with its name."""

    def keys(self) -> list[str]:
        """Returns the keys of the adapters that the chain wears, sorted."""
        return sorted(adapter.key for adapter in self.adapters)

    def path(self) -> str:
        """Returns the path of the chain from the root that an adapter was injected into."""
        name, placed = next(iter(self.placed.items()))
        return placed[0].seats[name].path.removesuffix(name).removesuffix(".") or "the root"

    def hidden(self) -> tuple[nn.Module, ...]:
        """Returns the base layers that adapters replace or remove: kept, but not run."""
        return tuple(
            [
                self.bare[name]
                for name, entries in self.folded.items()
                if not any(
                    part is self.bare[name] for _, layer in entries for part in layer.modules()
                )
            ]
        )

    def made(self, name: str) -> tuple[Made, ...]:
        """Returns the layers that edits made for a seat."""
        if name in self.inner:
            return self.inner[name]
        ((_, layer),), (placed, *_) = self.folded[name], self.placed[name]
        return (Made(layer, placed.adapter.key, placed.edit.kind),)

    def maker(self, layer: nn.Module) -> str | None:
        """Returns the key of the adapter that made a layer of this chain; None for a base layer."""
        for several in self.inner.values():
            for made in several:
                if made.layer is layer:
                    return made.key
        for name, entries in self.folded.items():
            for label, part in entries:
                if part is layer and label != name:
                    return label.rpartition("@")[2]
        return None


class Swap(NamedTuple):
    """The only effect of surgery: a chain gets another overlay, or becomes bare."""

    chain: Chain
    before: Overlay | None
    """The overlay of the chain when the swap was planned; None for bare."""
    after: Overlay | None
    """The overlay that the chain is to wear; None for bare."""


def bare_mapping(chain: Chain) -> dict[str, nn.Module]:
    """Returns the mapping object that a chain has while it is bare."""
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
    """Returns the overlay of a chain with the given edits.

    Args:
        chain: The chain.
        record: The overlay that the chain wears now; None for bare.
        placed: All edits of the chain by name, those already worn included.
        changed: The names whose edits differ from those of `record`; other seats keep their layers.

    Raises:
        PlanError: Two edits would make layers of the same name, or an edit does not make a module.
    """
    bare = bare_mapping(chain)
    folded: dict[str, tuple[Entry, ...]] = {}
    inner: dict[str, tuple[Made, ...]] = {}
    mapping: dict[str, nn.Module] = {}
    unique = {id(p): p for several in placed.values() for p in several}
    for name, layer in bare.items():
        several = placed.get(name)
        if several is None:
            entries: tuple[Entry, ...] = ((name, layer),)
        elif record is not None and name not in changed:
            entries = folded[name] = record.folded[name]
            if name in record.inner:
                inner[name] = record.inner[name]
        elif len(several) == 1 and _is_plain_wrap(p := several[0]):  # nearly always
            entries = folded[name] = ((name + p.suffix, p.made(name, layer)),)
        else:
            made: list[Made] = []
            entries = folded[name] = _surrounded(chain, name, layer, several, made)
            inner[name] = tuple(made)
        _add(chain, mapping, entries)
    running = set(map(id, mapping.values()))
    return Overlay(
        bare=bare,
        placed=placed,
        adapters=tuple({id(p.adapter): p.adapter for p in unique.values()}.values()),
        folded=folded,
        inner=inner,
        mapping=mapping,
        snapshot=snapshot(mapping),
        bare_snapshot=snapshot(bare),
        is_exclusive=any(p.is_exclusive for p in unique.values()),
        covered=tuple([(bare[name], name) for name in folded if id(bare[name]) not in running]),
    )


def _add(chain: Chain, mapping: dict[str, nn.Module], entries: Iterable[Entry]) -> None:
    """Adds layers to a mapping of children.

    Raises:
        PlanError: A name is taken.
    """
    for label, layer in entries:
        if label in mapping:
            raise PlanError(
                f"two edits would name a layer of {type(chain).__name__} {label!r}.",
                hint='Give each another name, e.g. wrap(..., name="lora").',
            )
        mapping[label] = layer


def _surrounded(
    chain: Chain, name: str, layer: nn.Module, placed: Sequence[Placed], made: list[Made]
) -> tuple[Entry, ...]:
    """Returns what runs at a seat, inside the wraps that surround all of it."""
    around = [p for p in placed if _is_around(p)]
    entries = tuple(_worn_seat(name, layer, [p for p in placed if not _is_around(p)], made))
    if not around:
        return entries
    ((label, part),) = entries if len(entries) == 1 else ((name, Chain()),)
    if len(entries) > 1:
        _add(chain, part.__dict__["_modules"], entries)
        made.append(Made(part, "", "part"))
    for p in sorted(around, key=lambda p: p.order):
        label, part = name + p.suffix, p.made(name, part)
        made.append(Made(part, p.adapter.key, p.edit.kind))
    return ((label, part),)


def _is_plain_wrap(placed: Placed) -> bool:
    return placed.edit.kind == "wrap" and placed.adapter.lane is None


def _is_around(placed: Placed) -> bool:
    return placed.edit.kind == "wrap" and placed.edit.stage == "around"


def _worn_seat(
    name: str, layer: nn.Module, placed: Sequence[Placed], made: list[Made]
) -> Iterator[Entry]:
    def entry(p: Placed, *inner: nn.Module) -> Entry:
        new = p.made(name, *inner)
        made.append(Made(new, p.adapter.key, p.edit.kind))
        return name + p.suffix, new

    ordered = sorted(placed, key=lambda p: p.order)
    for p in ordered:
        if p.edit.kind == "before":
            yield entry(p)
    kept: Entry | None = name, layer
    for p in ordered:
        if p.edit.kind == "replace":
            kept = entry(p)
        elif p.edit.kind == "remove":
            kept = None
    wraps = [p for p in ordered if p.edit.kind == "wrap"]
    for group, part in groupby(wraps, _group):
        assert kept is not None, "planning refuses to wrap a removed seat"
        if group is not None:
            kept = _abreast(name, kept[1], [*part], made)
            continue
        for p in part:
            kept = entry(p, kept[1])
    if kept is not None:
        yield kept
    # The adapter whose layers come first before a seat comes last after it.
    for p in sorted(ordered, key=lambda p: (p.adapter.order, -p.position), reverse=True):
        if p.edit.kind == "after":
            yield entry(p)


def _group(placed: Placed) -> tuple[str, int] | None:
    """Returns the stage and the group of adapters in which a wrap is abreast of others."""
    lane = placed.adapter.lane
    return None if lane is None else (placed.edit.stage, lane.group)


def _abreast(name: str, inner: nn.Module, placed: Sequence[Placed], made: list[Made]) -> Entry:
    """Returns what runs at a seat that adapters wrap abreast."""
    lanes: dict[str, nn.Module] = {}
    weights: list[float] = []
    for lane, part in groupby(placed, lambda p: p.adapter.lane):
        assert lane is not None, "only adapters with a lane are grouped"
        label, layer = "", inner
        if placed[0].edit.stage != "inputs":  # its wraps see what the layer returns
            layer = Given()
            made.append(Made(layer, "", "part"))
        for p in part:
            label, layer = f"of_{p.adapter.key}", p.made(name, layer)
            made.append(Made(layer, p.adapter.key, p.edit.kind))
        lanes[label] = layer
        weights.append(lane.weight)
    joined = Abreast(inner, lanes, weights)
    made.append(Made(joined, "", "part"))
    return f"{name}+abreast", joined
