"""The places at which a worn adapter acts by its scale, and their names."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from refiners_core.errors import ConditionError
from refiners_core.model import Model
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.block_compiler import Call
from refiners_core.surgery.overlay import Overlay
from refiners_core.surgery.tree_index import ChainRef, tree_index
from refiners_core.tree.bare_tree import bare_children
from refiners_core.tree.combinators import SetContext, When
from refiners_core.tree.layer import Layer
from refiners_core.tree.place import Place


class ActingPlace(NamedTuple):
    """A place at which layers of an adapter read its scale."""

    path: str
    """The path from the model."""
    block: int
    """The identity of the compiled block around the place; 0 without one."""
    name: str
    """The path from that block, or from the model."""


def acting_places(model: Model, adapter: Adapter) -> tuple[ActingPlace, ...]:
    """Returns the places at which layers of a worn adapter read its scale, in order.

    A layer reads the scale if it, or a layer that it contains, has `adapter.scale_key` as an
    attribute. A layer that only computes values for other places, if the adapter is active at all,
    does not act at its place: its part of the tree compares the key and writes to the context.

    The layers are marked, so that a call with scales by place finds theirs. A layer that sits in
    several places acts at the first.
    """
    known = tree_index(model)
    acting: dict[str, ActingPlace] = {}
    marked: set[int] = set()
    for spot, seats in known.by_spot.items():
        chain = spot.ref()
        record: Overlay | None = None if chain is None else chain.__dict__.get("_worn")
        if record is None or not any(other is adapter for other in record.adapters):
            continue
        for name in record.placed:
            made = record.made(name)
            others = {id(part.layer) for part in made} | {id(record.bare[name])}
            for part in made:
                layer = part.layer
                if part.key != adapter.key or not isinstance(layer, Layer) or id(layer) in marked:
                    continue
                inner = _inner_path(layer, others - {id(layer)})
                if _acts(layer, inner, adapter.scale_key):
                    place = acting[seats[name].path] = _place_at(seats[name].path, spot)
                    is_beside = part.kind in ("before", "after")
                    layer.__dict__["_place"] = Place(adapter.key, place.name, inner, is_beside)
                    marked.add(id(layer))
    return tuple(acting.values())


def names_at(
    model: Model, adapter: Adapter, places: Iterable[ActingPlace], wanted: Iterable[str]
) -> dict[str, list[str]]:
    """Returns, for each place, which of some names include it, the most specific first.

    A name is that of a component, of a slot, of one place of a slot, such as `unet.up.0`, or one
    that the adapter gives to places, such as `style`; it includes what is inside. The name for
    fewer places of the model is more specific: `unet.up.0`, then `unet.up`, then all attentions,
    then all linear layers; a component comes last. Of names for as many places, the one whose place
    is further inside is more specific.

    Args:
        model: The model that wears the adapter.
        adapter: The adapter.
        places: The places at which it acts.
        wanted: The names.

    Raises:
        ConditionError: The adapter does not act at any place of a name.
    """
    paths = [place.path for place in places]
    given = adapter.named_places(model)
    ranked: dict[str, list[tuple[Any, ...]]] = {path: [] for path in paths}
    for name in dict.fromkeys(wanted):
        roots = _roots(model, name, given)
        is_component = name in bare_children(model)
        inside = [(path, root) for path in paths for root in roots if _is_inside(path, root)]
        if not inside:
            raise _nowhere(model, adapter, paths, name, given)
        for path, root in inside:
            ranked[path].append((is_component, len(roots), -root.count("."), name))
    return {path: [rank[-1] for rank in sorted(ranks)] for path, ranks in ranked.items()}


def _nowhere(
    model: Model,
    adapter: Adapter,
    paths: Iterable[str],
    name: str,
    given: Mapping[str, Sequence[str]],
) -> ConditionError:
    exists = bool(_roots(model, name, given))
    slots = {slot: len(model.slot(slot)) for slot in model.slots}
    numbered = [f"{slot}.{i}" for slot, count in slots.items() for i in range(count)]
    names = [
        candidate
        for candidate in (*bare_children(model), *slots, *given, *numbered)
        if any(_is_inside(path, root) for root in _roots(model, candidate, given) for path in paths)
    ]
    fact = f"{adapter.key} does not act at {name!r}" if exists else f"{name!r} is not a place"
    shown = [candidate for candidate in names if candidate not in numbered]
    near = [candidate for candidate in names if candidate.endswith(f".{name}")]
    near = near or difflib.get_close_matches(name, names, 1)
    return ConditionError(
        f"{fact} of this {model.base}; {adapter.key} acts at {', '.join(shown)}.",
        hint=f"Did you mean {near[0]!r}?" if near else f'Try scale={{"{shown[0]}": 1.0}}.',
    )


def _roots(model: Model, name: str, given: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Returns the paths of the places of a name; none if model and adapter do not have the name."""
    if name in bare_children(model):
        return (name,)
    slot, _, index = name.rpartition(".")
    if name in model.slots:
        return tuple([seat.path for seat in model.slot(name)])
    if name in given:
        return tuple(given[name])
    seats = model.slot(slot).seats if slot in model.slots and index.isdecimal() else ()
    return tuple([seat.path for seat in seats[int(index or 0) :][:1]]) if seats else ()


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}.")


def _place_at(path: str, spot: ChainRef) -> ActingPlace:
    """Returns a place, named from the outermost compiled block around it."""
    chains, around = [], spot
    while around is not None:
        chains.append(around.ref())
        around = around.outer
    names = path.split(".")
    for depth, chain in enumerate(reversed(chains)):
        if chain is not None and isinstance(chain.__dict__.get("_compiled_call_impl"), Call):
            return ActingPlace(path, id(chain), ".".join(names[depth:]))
    return ActingPlace(path, 0, path)


def _inner_path(layer: nn.Module, others: set[int]) -> tuple[str, ...] | None:
    """Returns the path of the outermost layer inside that the adapter did not make here."""
    pending: list[tuple[tuple[str, ...], nn.Module]] = [((), layer)]
    for path, part in pending:  # grows: breadth first, so that the outermost is found first
        for name, child in part.__dict__["_modules"].items():
            if id(child) in others:
                return (*path, name)
            if child is not None:
                pending.append(((*path, name), child))
    return None


def _acts(layer: nn.Module, inner: tuple[str, ...] | None, scale_key: str) -> bool:
    uses = gates = writes = False
    for part in _parts(layer, inner):
        has_key = any(value == scale_key for value in _words(part.__dict__))
        gates |= has_key and isinstance(part, When)
        uses |= has_key and not isinstance(part, When)
        writes |= isinstance(part, SetContext)
    return uses or (gates and not writes)


def _parts(layer: nn.Module, inner: tuple[str, ...] | None) -> Iterator[nn.Module]:
    """Yields a layer and those inside, without what is at the path `inner`."""
    yield layer
    for name, child in layer.__dict__["_modules"].items():
        is_towards = inner is not None and inner[0] == name
        if child is not None and not (is_towards and inner == (name,)):
            yield from _parts(child, inner[1:] if is_towards and inner else None)


def _words(attributes: Mapping[str, Any]) -> Iterator[str]:
    for value in attributes.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from (word for word in value if isinstance(word, str))
