"""The maps whose positions are the tokens of self-attention."""

from collections.abc import Iterator
from typing import NamedTuple


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
