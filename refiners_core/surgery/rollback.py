"""The state of an adapter, kept for the case that an inject fails."""

from collections.abc import Callable
from typing import Any

from torch import nn


def restorer(adapter: Any) -> Callable[[], None]:
    """Returns a function that gives an adapter the state that it has now.

    Args:
        adapter: An adapter; of its parts, only `own_layers` may gain layers meanwhile.
    """
    state = adapter.__dict__.copy()
    copies = {name: state[name].copy() for name in ("_modules", "_parameters", "_buffers")}
    own_layers: nn.ModuleDict = adapter.own_layers
    layers = own_layers._modules.copy()

    def restore() -> None:
        adapter.__dict__.clear()
        adapter.__dict__.update(state | copies)
        own_layers.__dict__["_modules"] = layers

    return restore
