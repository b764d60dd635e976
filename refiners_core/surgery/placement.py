"""The device and dtype of the layers of an adapter: those of the base around their seats."""

from torch import Tensor, nn

from refiners_core.surgery.tree_index import ChainRef, Seat
from refiners_core.tree.bare_tree import (
    bare_children,
    first_built_weight,
    first_weight,
    is_stand_in,
)


def weight_around(seat: Seat, beside: dict[ChainRef, Tensor | None]) -> Tensor | None:
    """Returns a weight that has the device and dtype of the base at a seat.

    Args:
        seat: The seat.
        beside: A cache of the weights around layers without weights, by chain; it is filled.

    Returns:
        The first weight of the seat, or of the nearest chain around it; None if the tree has none.
        A layer that replaced another one, such as a quantised one, computes in the dtype around it.
    """
    layer = bare_children(seat.chain)[seat.name]
    weight = None if is_stand_in(seat.chain, seat.name, layer) else first_weight(layer)
    if weight is not None:
        return weight
    if seat.spot not in beside:
        chains = tuple(reversed(seat.above))
        weights = (first(chain) for first in (first_built_weight, first_weight) for chain in chains)
        beside[seat.spot] = next((w for w in weights if w is not None), None)
    return beside[seat.spot]


def place_layer(layer: nn.Module, base: Tensor, is_new: bool) -> nn.Module:
    """Moves a layer of an adapter to the device and dtype of a weight of the base, and returns it.

    Weights with values never move to the meta device, and meta weights stay there.

    Args:
        layer: The layer.
        base: A weight of the base.
        is_new: Whether the layer was built just now, so that its values may be dropped.
    """
    weight = first_weight(layer)
    if weight is None:
        return layer
    if is_new and not base.is_meta and not any(part.is_meta for part in layer.parameters()):
        # Parts that it shares with other layers may have moved with those already.
        return layer.to(device=base.device, dtype=base.dtype)
    stays = weight.is_meta or (base.is_meta and not is_new) or weight.device == base.device
    if stays:
        return layer if weight.dtype is base.dtype else layer.to(dtype=base.dtype)
    return layer.to(device=base.device, dtype=base.dtype)
