"""Where an adapter's own layers are to be: where the base is around their seats."""

from torch import Tensor, nn

from refiners_core.surgery.tree_index import ChainRef, Seat
from refiners_core.tree.bare_tree import bare_children, first_weight


def weight_around(seat: Seat, beside: dict[ChainRef, Tensor | None]) -> Tensor | None:
    """Returns a weight that shows device and dtype of the base at a seat; none where it has none.

    Args:
        seat: The seat.
        beside: What was found around layers without weights so far, by their chains.
    """
    weight = first_weight(bare_children(seat.chain)[seat.name])
    if weight is not None:
        return weight
    if seat.spot not in beside:
        weights = (first_weight(chain) for chain in reversed(seat.above))
        beside[seat.spot] = next((w for w in weights if w is not None), None)
    return beside[seat.spot]


def place_layer(own: nn.Module, base: Tensor, is_new: bool) -> nn.Module:
    """Returns an adapter's layer after moving it to where a weight of the base is.

    Weights are never lost to a base without any, and those that are still to come stay away.
    """
    weight = first_weight(own)
    if weight is None:
        return own
    stays = weight.is_meta or (base.is_meta and not is_new) or weight.device == base.device
    if stays:
        return own if weight.dtype is base.dtype else own.to(dtype=base.dtype)
    return own.to(device=base.device, dtype=base.dtype)
