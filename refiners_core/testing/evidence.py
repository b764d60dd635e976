"""What the laws of the contract are made of: what there is, and whether it is what there was."""

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
"""Parts by name, kept alive by nothing here."""


def expect(is_so: bool, otherwise: str) -> None:
    """Raises an `AssertionError` that says what is wrong, unless all is right."""
    if not is_so:  # not `assert`, which `python -O` leaves out
        raise AssertionError(otherwise)


def expect_same(now: dict[str, Any], then: dict[str, Any], otherwise: str) -> None:
    """Expects two states to be one, and names what differs."""
    changed = ", ".join(name for name in then if now[name] != then[name])
    expect(not changed, f"{otherwise}: its {changed} changed")


def expect_freed(watched: Watched, otherwise: str) -> None:
    """Expects all that is watched to be gone, and names what is not."""
    alive = [name or "itself" for name, ref in watched if ref() is not None]
    expect(not alive, f"{otherwise}: {', '.join(alive[:5])}")


def watched_parts(parts: Iterable[tuple[str, nn.Module]]) -> Watched:
    """Watches modules without keeping them."""
    return [(name, weakref.ref(part)) for name, part in parts]


def state(model: Any) -> dict[str, Any]:
    """Returns what a tree is, down to the identity of its mappings and the bits of its weights."""
    layers = list(model.named_modules())
    return {
        "places": [(seat.path, id(seat.layer)) for seat in select(model)],
        "mappings of children": [id(layer._modules) for _, layer in layers],
        "layers": [(name, id(layer), layer.training) for name, layer in layers],
        "hooks": [(list(x._forward_hooks), list(x._forward_pre_hooks)) for _, x in layers],
        "keys": list(model.state_dict()),
        "weights": [
            (name, id(weight), weight.requires_grad, bits(weight))
            for name, weight in (*model.named_parameters(), *model.named_buffers())
            if weight.device.type != "meta"
        ],
    }


def adapter_state(adapter: Adapter) -> Any:
    """Returns what an adapter is."""
    parts = [id(part) for part in (*adapter.modules(), *adapter.parameters())]
    return sorted(set(adapter.__dict__) - {"build", "edits"}), parts, adapter.is_worn


def said(adapter: Adapter, model: Any) -> list[tuple[str, str, str]]:
    """Returns what an adapter says to a model: paths, kinds of edits and stages."""
    return [
        (seat.path, edit.kind, edit.stage) for edit in adapter.edits(model) for seat in edit.seats
    ]


class Failure(BaseException):
    """Not an `Exception`, so that nobody takes it for one of theirs."""


@contextmanager
def failing(adapter: Adapter, step: str) -> Generator[None]:
    """Lets an adapter fail at `build`, `edits` or in `a callback`, its last."""

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
    """Expects an error of a kind."""
    try:
        yield
    except kind:
        return
    except PlanError as error:
        raise AssertionError(f"{otherwise}: {error}") from error
    raise AssertionError(otherwise)


@contextmanager
def no_collector() -> Generator[None]:
    """Keeps the cycle collector out, so that reference counts alone decide."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def thawed(value: Any) -> Any:
    """Returns what pickle makes of a value."""
    return pickle.loads(pickle.dumps(value))
