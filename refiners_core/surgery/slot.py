"""Slots: stable names for places in a model."""

from dataclasses import dataclass

from torch import nn

from refiners_core.surgery.selection import Selection, select
from refiners_core.surgery.tree_index import Seat, tree_index
from refiners_core.tree.chain import Chain


@dataclass(frozen=True)
class Slot:
    """The meaning of a stable name, and the query for its places in a model.

    Each family publishes a table of slots, so that adapters need not know how its models are built.
    Conditions left at their defaults match every place.

    A place is found by its role: a layer of another class that replaced a linear layer, such as a
    quantised one, stays among the linear layers.

    Example:
        >>> Slot("the linear layers of the UNet", part="unet", kind=nn.Linear).part
        'unet'
    """

    meaning: str
    """One line of documentation."""
    part: str
    """The component of the model that contains the places, such as `unet`, or is the place."""
    kind: type[nn.Module] | tuple[type[nn.Module], ...] = nn.Module
    """The class of the base layer of a place, or several."""
    name: str | None = None
    """The name of the place in its chain."""
    chain: type[Chain] = Chain
    """The class of the chain that has the place as a child."""
    within: type[Chain] = Chain
    """The class of a chain around the place, at any distance."""

    def __call__(self, model: Chain) -> Selection:
        """Returns the places in execution order."""
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        places = select(model)
        seats = tree_index(model).in_role(kinds)
        return Selection(model, seats, places.question).within(self.within).where(self._is_meant)

    def _is_meant(self, seat: Seat) -> bool:
        return (
            f"{seat.path}.".startswith(f"{self.part}.")
            and isinstance(seat.chain, self.chain)
            and self.name in (None, seat.name)
        )
