"""The maps whose positions are the tokens of self-attention."""

from collections.abc import Iterator
from typing import NamedTuple

from refiners_core.errors import AdapterError
from refiners_core.models.diffusion import LatentDiffusion


class Grid(NamedTuple):
    """A feature map of some level of the UNet."""

    height: int
    """The number of its rows."""
    width: int
    """The number of its columns."""
    depth: int
    """How often it was downsampled from the latents."""


def grids(height: int, width: int, deepest: int) -> Iterator[Grid]:
    """Yields the maps of latents, one for each level; each downsampling rounds sides up.

    Args:
        height: The height of the latents.
        width: Their width.
        deepest: The number of downsamplings of the last map.
    """
    for depth in range(deepest + 1):
        yield Grid(-(-height // 2**depth), -(-width // 2**depth), depth)


def deepest_level(model: LatentDiffusion, depth: int | None, key: str, hint: str) -> int:
    """Returns the number of downsamplings of the last level that an adapter acts on.

    Args:
        model: The model.
        depth: The number; None for the first level with self-attention.
        key: The key of the adapter, for messages.
        hint: The option and a value of it, of which {depth} and {factor} are replaced.

    Raises:
        AdapterError: No level down to this one has self-attention.
    """
    levels = [f"{seat.path}." for seat in model.slot("unet.down")]
    paths = [seat.path for seat in model.slot("unet.self_attention")]
    with_attention = (
        i for i, level in enumerate(levels) if any(p.startswith(level) for p in paths)
    )
    first = next(with_attention, len(levels) - 1)  # the middle is as deep as the last level
    if depth is not None and depth < first:
        raise AdapterError(
            f"{key} acts down to level {depth} of the UNet, but the first level with "
            f"self-attention of this {model.base} is {first}.",
            hint=f"Try {hint.format(depth=first, factor=2**first)}, or leave it out.",
        )
    return first if depth is None else depth
