"""A tree as if it wore no adapters."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn


def bare_children(layer: nn.Module) -> Mapping[str, nn.Module]:
    """Returns a module's children as if no adapter were worn."""
    worn = layer.__dict__.get("_worn")
    return worn.bare if worn is not None else layer.__dict__["_modules"]


def bare_walk(tree: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields path and layer of every place of the bare tree, root excluded, in order."""
    for name, child in bare_children(tree).items():
        if child is None:  # pyright: ignore[reportUnnecessaryComparison]  torch leaves places open
            continue
        path = f"{prefix}{name}"
        yield path, child
        yield from bare_walk(child, f"{path}.")


def first_weight(tree: nn.Module) -> torch.Tensor | None:
    """Returns the bare tree's first floating-point weight: it declares device and dtype."""
    for weight in tree._parameters.values():
        if weight is not None and weight.is_floating_point():
            return weight
    for child in bare_children(tree).values():
        if child is not None:  # pyright: ignore[reportUnnecessaryComparison]  torch leaves places open
            weight = first_weight(child)
            if weight is not None:
                return weight
    return None


def hidden(chain: nn.Module) -> tuple[nn.Module, ...]:
    """Returns the base layers that do not run because of what the chain wears."""
    worn = chain.__dict__.get("_worn")
    return worn.hidden() if worn is not None else ()
