"""The saved state of an adapter, restored if an inject fails."""

from collections.abc import Callable
from typing import Any

from torch import nn


def restorer(adapter: Any) -> Callable[[], None]:
    """Returns a function that puts an adapter back into its current state.

    Args:
        adapter: An adapter; of its submodules, only `own_layers` may gain layers meanwhile.
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
