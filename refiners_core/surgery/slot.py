"""Slots: stable names for places in a model."""

from dataclasses import dataclass

from torch import nn

from refiners_core.surgery.selection import Selection, select
from refiners_core.surgery.tree_index import Seat
from refiners_core.tree.chain import Chain


@dataclass(frozen=True)
class Slot:
    """The meaning of a stable name, and the query for its places in a model.

    Each family publishes a table of slots, so that adapters need not know how its models are built.
    Conditions left at their defaults match every place.

    Example:
        >>> Slot("the linear layers of the UNet", part="unet", kind=nn.Linear).part
        'unet'
    """

    meaning: str
    """One line of documentation."""
    part: str
    """The component of the model that contains the places, such as `unet`, or is the place."""
    kind: type[nn.Module] = nn.Module
    """The class of the base layer of a place."""
    name: str | None = None
    """The name of the place in its chain."""
    chain: type[Chain] = Chain
    """The class of the chain that has the place as a child."""
    within: type[Chain] = Chain
    """The class of a chain around the place, at any distance."""

    def __call__(self, model: Chain) -> Selection:
        """Returns the places in execution order."""
        return select(model).of(self.kind).within(self.within).where(self._is_meant)

    def _is_meant(self, seat: Seat) -> bool:
        return (
            f"{seat.path}.".startswith(f"{self.part}.")
            and isinstance(seat.chain, self.chain)
            and self.name in (None, seat.name)
        )
