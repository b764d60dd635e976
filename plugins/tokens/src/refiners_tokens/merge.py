"""ToMe: self-attention runs on fewer tokens, into which similar ones are merged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat, SetContext
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import choice, flag, number, whole
from refiners_tokens.grid import deepest_level, grids
from refiners_tokens.merging import Merge, Split

DEPTHS: Final[Mapping[int, int]] = {1: 0, 2: 1, 4: 2, 8: 3}
"""The number of downsamplings of each factor."""


class TokenMerging(Adapter):
    """Merges similar tokens before self-attention, and gives them its result alike (ToMe for
    Stable Diffusion, arXiv:2303.17604).

    One token of each cell of the map is a destination, drawn anew at each call from the seed of the
    picture, the same for all branches and in all layers of a level. The share of tokens that
    resemble a destination most is merged into it.

    Args:
        ratio: The share of tokens to merge, in 0...1. No more than the other tokens of cells can
            be: 0.75 of all for cells of 2 x 2. 0 keeps the network as it is.
        max_downsample: The largest downsampling of levels whose tokens are merged: 1, 2, 4 or 8;
            None for the first level with self-attention, which is 1 for Stable Diffusion 1.5, as in
            the authors' package, and 2 for XL.
        sx: The width of a cell.
        sy: The height of a cell.
        use_rand: Whether destinations are drawn; otherwise it is the first token of each cell.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: An option is out of range.

    Example:
        >>> TokenMerging(name="tome").ratio
        0.5
    """

    def __init__(
        self,
        *,
        ratio: float = 0.5,
        max_downsample: int | None = None,
        sx: int = 2,
        sy: int = 2,
        use_rand: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.ratio: Final = number("ratio", ratio, 0.5, low=0, high=1)
        self.max_downsample: Final = (
            None if max_downsample is None else choice("max_downsample", max_downsample, (*DEPTHS,))
        )
        self.cell: Final = whole("sy", sy, 2), whole("sx", sx, 2)
        self.use_rand: Final = flag("use_rand", use_rand, True)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Draws destinations at the input of the UNet, and merges tokens around self-attention.

        Raises:
            AdapterError: No level with this downsampling or less has self-attention.
        """
        attentions = model.slot("unet.self_attention")
        blocks = {seat.path.rpartition(".")[0] for seat in attentions}
        norms = model.slot("unet.norm").where(lambda seat: seat.path.rpartition(".")[0] in blocks)
        depth = None if self.max_downsample is None else DEPTHS[self.max_downsample]
        deepest = deepest_level(model, depth, self.key, "max_downsample={factor}")
        draw = DrawSplits(self.key, self.cell, deepest, is_random=self.use_rand)
        metric, splits = self.context_key("metric"), self.context_key("splits")

        def drawn(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(draw, inner)

        def measured(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(SetContext(metric), inner)

        def merged(inner: nn.Module, seat: Seat) -> nn.Module:
            return MergeTokens(metric, splits, self.ratio, inner)

        return (
            *model.slot("unet.input").wrap(drawn, stage="inputs", name="draw"),
            *norms.wrap(measured, stage="inputs", name="metric"),
            *attentions.wrap(merged, stage="output", name="merge"),
        )


class DrawSplits(Layer):
    """Divides the tokens of each level into destinations and sources, and returns its input.

    Args:
        key: The key of the adapter.
        cell: The height and width of a cell, which has one destination.
        deepest: The number of downsamplings of the last level.
        is_random: Whether destinations are drawn.
    """

    def __init__(self, key: str, cell: tuple[int, int], deepest: int, *, is_random: bool) -> None:
        super().__init__()
        self.key: Final = key
        self.cell: Final = cell
        self.deepest: Final = deepest
        self.is_random: Final = is_random

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        is_active = context.get(f"{self.key}.scale") is not None
        context[f"{self.key}.metric"] = None  # compiled blocks see the same number of values
        context[f"{self.key}.splits"] = self._splits(context, x) if is_active else {}
        return x

    def _splits(self, context: Context, x: Tensor) -> dict[int, Split]:
        """Returns the partition of each number of tokens."""
        sources = self._generators(context, x) if self.is_random else None
        return {
            grid.height * grid.width: Split.drawn(grid, self.cell, sources).for_rows(
                len(x), x.device
            )
            for grid in grids(x.shape[-2], x.shape[-1], self.deepest)
            if grid.height >= self.cell[0] and grid.width >= self.cell[1]
        }

    def _generators(self, context: Context, x: Tensor) -> list[torch.Generator]:
        """Returns a random generator for each picture, of its seed and the step."""
        count = len(x) // max(len(context.get("branches", ())), 1)
        given: Sequence[int] = context.get("seeds", ())
        seeds = given if len(given) == count else [*given[:1], 0][:1] * count
        step: int = context.get("step", 0)
        return [
            torch.Generator("cpu").manual_seed((seed + 1_000_003 * step) % 2**63) for seed in seeds
        ]

    def extra_repr(self) -> str:
        return f"{self.key!r}, cell={self.cell}"


class MergeTokens(Chain):
    """Merges tokens, runs an attention on them, and gives its outputs back to all tokens.

    Args:
        metric: The context key of the features that are compared: the tokens before their
            normalisation.
        splits: The context key of the partition by number of tokens.
        ratio: The share of tokens to merge.
        inner: The attention.
    """

    inner: nn.Module

    def __init__(self, metric: str, splits: str, ratio: float, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.metric: Final = metric
        self.splits: Final = splits
        self.ratio: Final = ratio

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        splits: Mapping[int, Split] = context.get(self.splits, {})
        count, metric = int(x.shape[1] * self.ratio), context.get(self.metric)
        split = splits.get(x.shape[1])
        if split is None or count == 0 or metric is None:
            return self.call(self.inner, context, x)
        merge = Merge.of(metric, split, count)
        return merge.undo(self.call(self.inner, context, merge.apply(x)))

    def extra_repr(self) -> str:
        return f"ratio={self.ratio:g}"
