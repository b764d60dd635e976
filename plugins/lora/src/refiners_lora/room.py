"""Room for LoRAs of other layers and ranks: updates that zeros pad to one structure."""

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn import functional as F

from refiners_core.errors import AdapterError
from refiners_lora.method.change import Change
from refiners_lora.method.low_rank import LowRank, rebuilt

Changes = Mapping[str, Change]
"""The changes of a LoRA by the paths of their layers."""


def room_of(changes: Changes, key: str) -> dict[str, int]:
    """Returns the rank of each update of a plain LoRA.

    Args:
        changes: The changes.
        key: The key of the adapter, for messages.

    Raises:
        AdapterError: The adapter has not been on a model yet, or has other weights than pairs of
            factors.
    """
    if not changes:
        raise AdapterError(
            f"{key} has not been on a model yet, so its layers are unknown.",
            hint="Load it with a model, load_adapter(name, model), and eject it.",
        )
    for path, change in changes.items():
        if type(change) is not LowRank or len(change.published()) != 2 or change.offset is not None:
            raise AdapterError(
                f"{key} has {change.title or 'other weights'} at {path!r}: only plain LoRAs are "
                "padded to other layers and ranks.",
                hint="Eject the one and inject the other.",
            )
    return {path: change.rank or 1 for path, change in changes.items()}


def joined(rooms: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Returns the layers of several rooms, each with the greatest rank."""
    paths = sorted({path for room in rooms for path in room})
    return {path: max(room.get(path, 0) for room in rooms) for path in paths}


def padded(path: str, rank: int, known: Sequence[Changes]) -> LowRank:
    """Returns the update of a layer with factors of a rank, to which zeros are added.

    Its strength is folded into `up`, so that updates of all alphas compute alike.

    Args:
        path: The path of the layer.
        rank: The rank.
        known: The changes of the adapter, then of others; the first one that has the layer gives
            the shapes. Without an update of its own, the adapter gets one of zeros.
    """
    change = next(changes[path] for changes in known if path in changes)
    assert isinstance(change, LowRank)
    weights = change.published()
    down, up = weights["down"].detach(), weights["up"].detach()
    up = up if change.factor == 1 else (up.float() * change.factor).to(up.dtype)
    missing = rank - len(down)
    if path not in known[0]:
        down, up = down.new_zeros(down.shape), up.new_zeros(up.shape)
    down = F.pad(down, (*(0, 0) * (down.ndim - 1), 0, missing))
    up = F.pad(up, (*(0, 0) * (up.ndim - 2), 0, missing))
    return rebuilt(change, down, up, _is_trained(change))


def cut(change: Change, rank: int) -> Change:
    """Returns a padded update without its padding.

    Args:
        change: The update.
        rank: Its rank without padding.
    """
    assert isinstance(change, LowRank)
    weights = change.published()
    down, up = weights["down"], weights["up"]
    return rebuilt(change, down[:rank], up[:, :rank], _is_trained(change))


def _is_trained(change: nn.Module) -> bool:
    return any(weight.requires_grad for weight in change.parameters())
