"""Stable names for places in a model, by meaning."""

from dataclasses import dataclass

from torch import nn

from refiners_core.surgery.selection import Selection, select
from refiners_core.surgery.tree_index import Seat
from refiners_core.tree.chain import Chain


@dataclass(frozen=True)
class Slot:
    """What a stable name means, and how its places are found in a model.

    Families publish a table of slots, so that adapters need not know how a model is built. What
    is not said does not matter.

    Example:
        >>> Slot("the linear layers of the UNet", part="unet", kind=nn.Linear).part
        'unet'
    """

    meaning: str
    """One line for people."""
    part: str
    """The component that has the places."""
    kind: type[nn.Module] = nn.Module
    """What the base layer of a place is."""
    name: str | None = None
    """What the place is called in its chain."""
    chain: type[Chain] = Chain
    """The kind of the chain that has the place."""
    within: type[Chain] = Chain
    """A kind of chain around the place, at any distance."""

    def __call__(self, model: Chain) -> Selection:
        """Returns the places in execution order."""
        return select(model).of(self.kind).within(self.within).where(self._is_meant)

    def _is_meant(self, seat: Seat) -> bool:
        return (
            seat.path.startswith(f"{self.part}.")
            and isinstance(seat.chain, self.chain)
            and self.name in (None, seat.name)
        )
