"""The bare tree: the base layers alone, as if no adapter were worn."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn


def bare_children(layer: nn.Module) -> Mapping[str, nn.Module]:
    """Returns the base children of a module by name, whatever adapters it wears."""
    worn = layer.__dict__.get("_worn")
    return worn.bare if worn is not None else layer.__dict__["_modules"]


def bare_walk(tree: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the path and layer of every place of the bare tree in order, without the root."""
    for name, child in bare_children(tree).items():
        if child is None:  # pyright: ignore[reportUnnecessaryComparison]  torch leaves places open
            continue
        path = f"{prefix}{name}"
        yield path, child
        yield from bare_walk(child, f"{path}.")


def first_weight(tree: nn.Module) -> torch.Tensor | None:
    """Returns the first floating-point weight of the bare tree, which sets its device and dtype.

    The scales of a quantised layer that replaced another one count only if there is nothing else.
    """
    weight = first_built_weight(tree)
    return _first_weight(tree, False) if weight is None else weight


def first_built_weight(tree: nn.Module) -> torch.Tensor | None:
    """Returns the first floating-point weight of layers that nothing replaced since they were
    built."""
    return _first_weight(tree, True)


def is_stand_in(chain: nn.Module, name: str, layer: nn.Module) -> bool:
    """Whether a layer is of another class than the one that its place was built with."""
    roles = chain.__dict__.get("_roles")
    role = None if roles is None else roles.get(name)
    return role is not None and not isinstance(layer, role.kind)


def _first_weight(tree: nn.Module, skips_stand_ins: bool) -> torch.Tensor | None:
    for weight in tree._parameters.values():
        if weight is not None and weight.is_floating_point():
            return weight
    for name, child in bare_children(tree).items():
        if child is None:  # pyright: ignore[reportUnnecessaryComparison]  torch leaves places open
            continue
        if skips_stand_ins and is_stand_in(tree, name, child):
            continue
        weight = _first_weight(child, skips_stand_ins)
        if weight is not None:
            return weight
    return None


def hidden(chain: nn.Module) -> tuple[nn.Module, ...]:
    """Returns the base layers that do not run because adapters replace or remove them."""
    worn = chain.__dict__.get("_worn")
    return worn.hidden() if worn is not None else ()
