"""The state of models and adapters, and its comparison, for the laws of the contract."""

import gc
import pickle
import weakref
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

from torch import nn

from refiners_core.errors import PlanError
from refiners_core.surgery.adapter import Adapter
from refiners_core.surgery.selection import Edit, select
from refiners_core.testing.case import bits

Watched = list[tuple[str, weakref.ref[Any]]]
"""Weak references to parts, by name."""


def expect(is_so: bool, otherwise: str) -> None:
    """Raises an `AssertionError` with the message `otherwise` unless `is_so`."""
    if not is_so:  # not `assert`, which `python -O` leaves out
        raise AssertionError(otherwise)


def expect_same(now: dict[str, Any], then: dict[str, Any], otherwise: str) -> None:
    """Expects two states to be equal; the message names the differences."""
    changed = ", ".join(name for name in then if now[name] != then[name])
    expect(not changed, f"{otherwise}: its {changed} changed")


def expect_freed(watched: Watched, otherwise: str) -> None:
    """Expects all watched parts to be freed; the message names the others."""
    alive = [name or "itself" for name, ref in watched if ref() is not None]
    expect(not alive, f"{otherwise}: {', '.join(alive[:5])}")


def watched_parts(parts: Iterable[tuple[str, nn.Module]]) -> Watched:
    """Returns weak references to modules, by name."""
    return [(name, weakref.ref(part)) for name, part in parts]


def state(model: Any) -> dict[str, Any]:
    """Returns the state of a tree, down to the identity of its mappings and the bits of its
    weights."""
    layers = list(model.named_modules())
    return {
        "places": [(seat.path, id(seat.layer)) for seat in select(model)],
        "mappings of children": [id(layer._modules) for _, layer in layers],
        "layers": [(name, id(layer), layer.training) for name, layer in layers],
        "hooks": [hooks_of(layer) for _, layer in layers],
        "methods": [methods_of(layer) for _, layer in layers],
        "keys": list(model.state_dict()),
        "weights": [
            (
                name,
                id(weight),
                weight.requires_grad,
                bits(weight),
                [*(weight._backward_hooks or ())],
            )
            for name, weight in (*model.named_parameters(), *model.named_buffers())
            if weight.device.type != "meta"
        ],
    }


def hooks_of(layer: nn.Module) -> list[list[int]]:
    """Returns the identities of the hooks of a layer, for each kind of hook."""
    tables = (table for name, table in vars(layer).items() if name.endswith("_hooks"))
    return [list(table) for table in tables]


def methods_of(layer: nn.Module) -> list[tuple[str, int]]:
    """Returns the methods that a layer itself has in place of those of its class."""
    kind, values = type(layer), vars(layer)
    return [(name, id(value)) for name, value in values.items() if callable(vars(kind).get(name))]


def adapter_state(adapter: Adapter) -> Any:
    """Returns the state of an adapter: its attributes, the identity of its parts, and whether it is
    worn."""
    parts = [id(part) for part in (*adapter.modules(), *adapter.parameters())]
    return sorted(set(adapter.__dict__) - {"build", "edits"}), parts, adapter.is_worn


def edits_of(adapter: Adapter, model: Any) -> list[tuple[str, str, str]]:
    """Returns the edits of an adapter for a model: path, kind and stage of each."""
    return [
        (seat.path, edit.kind, edit.stage) for edit in adapter.edits(model) for seat in edit.seats
    ]


class Failure(BaseException):
    """A deliberate failure; not an `Exception`, so that no code handles it by accident."""


@contextmanager
def failing(adapter: Adapter, step: str) -> Generator[None]:
    """Makes an adapter fail in `build`, in `edits`, or in `a callback`, that of its last edit."""

    def fail(*_: Any) -> Any:
        raise Failure(step)

    def build(model: Any, source: Any) -> None:
        type(adapter).build(adapter, model, source)
        raise Failure(step)

    def edits(model: Any) -> tuple[Edit, ...]:
        *first, last = type(adapter).edits(adapter, model)
        return (*first, last._replace(make=fail)) if step == "a callback" else fail()

    name, stand_in = ("build", build) if step == "build" else ("edits", edits)
    adapter.__dict__[name] = stand_in
    try:
        yield
    finally:
        adapter.__dict__.pop(name, None)


@contextmanager
def refused(kind: type[BaseException], otherwise: str) -> Generator[None]:
    """Expects an error of a class."""
    try:
        yield
    except kind:
        return
    except PlanError as error:
        raise AssertionError(f"{otherwise}: {error}") from error
    raise AssertionError(otherwise)


@contextmanager
def no_collector() -> Generator[None]:
    """Disables the cycle collector, so that reference counts alone free objects."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def thawed(value: Any) -> Any:
    """Returns the value after a round trip through pickle."""
    return pickle.loads(pickle.dumps(value))
