"""The edits of the seats of a chain, and the layers that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from torch import nn

from refiners_core.errors import PlanError
from refiners_core.surgery.selection import Edit
from refiners_core.surgery.tree_index import Seat
from refiners_core.surgery.wearable import Wearable

_STAGES: Final = {"inputs": 0, "branch": 1, "output": 2, "around": 3}


class Placed(NamedTuple):
    """An edit of seats of one chain, and the adapter that it belongs to."""

    adapter: Wearable
    position: int
    """The position of the edit among those of the adapter."""
    edit: Edit
    seats: Mapping[str, Seat]
    """The seats of the chain by name, with paths from the root of the inject."""
    suffix: str
    """The suffix of the names of the layers that the edit makes."""
    is_exclusive: bool
    """Whether the edit replaces or removes the base layer, which only one adapter may do."""

    @property
    def order(self) -> tuple[Any, ...]:
        """The sort key that makes the fold independent of the order of injects: stage, adapter,
        position."""
        return (_STAGES[self.edit.stage], self.adapter.order, self.position)

    def made(self, name: str, *inner: nn.Module) -> nn.Module:
        """Returns the layer that the edit makes for a seat.

        Args:
            name: The name of the seat.
            inner: The layer to wrap, for a wrap only.

        Raises:
            PlanError: The edit makes something other than an `nn.Module`.
        """
        layer: Any = self.edit.make(*inner, self.seats[name])
        if not isinstance(layer, nn.Module):
            raise PlanError(
                f"{self.adapter.key} made a {type(layer).__name__} for {self.seats[name].path!r}.",
                hint="The function passed to wrap, before, after or replace must return an "
                "nn.Module.",
            )
        return layer


Entry = tuple[str, nn.Module]
"""A name and a layer of a chain."""


class Made(NamedTuple):
    """A layer that an edit made."""

    layer: nn.Module
    key: str
    """The key of the adapter that the edit belongs to."""
    kind: str
    """The kind of the edit, such as `wrap`."""
