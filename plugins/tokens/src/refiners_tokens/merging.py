"""Merging tokens into similar ones, and the way back (arXiv:2303.17604, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refiners_tokens.grid import Grid


@dataclass(frozen=True)
class Split:
    """The partition of tokens into destinations, one for each cell of a map, and sources."""

    destinations: Int[Tensor, "rows cells"]
    """The positions of destinations, by row."""
    sources: Int[Tensor, "rows others"]
    """The other positions: also those at the border that lie in no whole cell."""

    @classmethod
    def drawn(
        cls, grid: Grid, cell: tuple[int, int], sources: Sequence[torch.Generator] | None
    ) -> Self:
        """Draws the destination of each cell.

        Args:
            grid: The map of tokens.
            cell: The height and width of a cell.
            sources: A random generator for each picture; None takes the first token of each cell.
        """
        (down, across), count = cell, 1 if sources is None else len(sources)
        cells = grid.height // down, grid.width // across
        if sources is None:
            chosen = torch.zeros(1, *cells, dtype=torch.long, device="cpu")
        else:
            chosen = torch.stack(
                [
                    torch.randint(down * across, cells, generator=source, device="cpu")
                    for source in sources
                ]
            )
        rows = torch.arange(cells[0], device="cpu")[:, None] * down + chosen // across
        columns = torch.arange(cells[1], device="cpu") * across + chosen % across
        is_source = torch.ones(count, grid.height * grid.width, dtype=torch.bool, device="cpu")
        is_source.scatter_(1, (rows * grid.width + columns).flatten(1), False)
        order = is_source.to(torch.uint8).argsort(dim=1, stable=True)
        destinations = cells[0] * cells[1]
        return cls(order[:, :destinations], order[:, destinations:])

    def for_rows(self, rows: int, device: torch.device) -> Self:
        """Returns the partition for all branches, whose rows follow one another."""
        parts = self.destinations, self.sources
        return type(self)(*[part.repeat(rows // len(part), 1).to(device) for part in parts])


@dataclass(frozen=True)
class Merge:
    """Which sources are merged into which destinations."""

    split: Split
    unmerged: Int[Tensor, "rows kept"]
    """The sources that stay, by their numbers among sources."""
    merged: Int[Tensor, "rows gone"]
    """The sources that are merged, by the same numbers, the most similar first."""
    into: Int[Tensor, "rows gone"]
    """The destination of each, by its number among destinations."""

    @classmethod
    def of(cls, metric: Float[Tensor, "rows tokens width"], split: Split, count: int) -> Self:
        """Chooses the sources that resemble a destination most, by the cosine of their features.

        Args:
            metric: The features that are compared.
            split: The partition.
            count: The number of sources to merge; no more than there are.
        """
        unit = metric / metric.norm(dim=-1, keepdim=True)
        scores = _at(unit, split.sources) @ _at(unit, split.destinations).transpose(-1, -2)
        best, nearest = scores.max(dim=-1)
        order = best.argsort(dim=-1, descending=True)
        count = min(count, split.sources.shape[1])
        merged = order[:, :count]
        return cls(split, order[:, count:], merged, nearest.gather(1, merged))

    def apply(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows fewer width"]:
        """Returns the sources that stay, and destinations as the mean of all that became one."""
        sources, destinations = _at(x, self.split.sources), _at(x, self.split.destinations)
        index = self.into[..., None].expand(-1, -1, x.shape[-1])
        means = destinations.scatter_reduce(1, index, _at(sources, self.merged), reduce="mean")
        return torch.cat([_at(sources, self.unmerged), means], dim=1)

    def undo(self, x: Float[Tensor, "rows fewer width"]) -> Float[Tensor, "rows tokens width"]:
        """Returns a value for each token; what was merged has that of its destination."""
        kept = self.unmerged.shape[1]
        unmerged, destinations = x[:, :kept], x[:, kept:]
        sources = self.split.sources
        order = torch.cat(
            [
                sources.gather(1, self.unmerged),
                self.split.destinations,
                sources.gather(1, self.merged),
            ],
            dim=1,
        )
        values = torch.cat([unmerged, destinations, _at(destinations, self.into)], dim=1)
        return torch.empty_like(values).scatter(1, order[..., None].expand_as(values), values)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Returns the tokens at some positions."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
