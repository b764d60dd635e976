"""First-block cache: the first block decides whether the others run."""

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_cache.change import Head, Measure, SkipByChange, all_due, relative_change
from refiners_cache.idle import since, until
from refiners_core import Chain, Context, Seat
from refiners_core.models.diffusion import LatentDiffusion


class FirstBlockCache(SkipByChange):
    """Runs the first block of the UNet at every call, and the others if it has changed.

    The first block is the first residual block, with its transformer if the level has some. If what
    it adds differs little from what it added at the last full call, the other blocks are skipped.
    The method is that of ParaAttention (https://github.com/chengzeyi/ParaAttention), without a
    paper.

    Args:
        threshold: The relative change from which on the network runs.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `threshold` is negative, or not a finite number.

    Example:
        >>> FirstBlockCache(name="first-block-cache").threshold
        0.08
    """

    def __init__(self, *, threshold: float = 0.08, **options: Any) -> None:
        super().__init__(threshold=threshold, usual=0.08, **options)

    def head(self, model: LatentDiffusion) -> Callable[[nn.Module, Seat], nn.Module]:
        """Returns a function that makes the layer at the first level."""
        level = f"{model.slot('unet.down')[0].path}."
        paths = [seat.path for seat in model.slot("unet.skip.write")]
        inside = next(path for path in paths if path.startswith(level))
        end = inside.removeprefix(level).partition(".")[0]

        def head(inner: nn.Module, seat: Seat) -> nn.Module:
            block = seat.layer
            assert isinstance(block, Chain), "a level is a chain"
            return FirstBlockHead(self.key, self.threshold, block, end, inner)

        return head


class FirstBlockHead(Head):
    """Compares what the first block adds with what it added at the last full call.

    Args:
        key: The key of the adapter.
        threshold: The relative change from which on the network runs.
        level: The first level, as it is without edits of the level as a whole.
        end: The name of the place in the level after its first block.
        inner: The first level.
    """

    def __init__(
        self, key: str, threshold: float, level: Chain, end: str, inner: nn.Module
    ) -> None:
        super().__init__(key, threshold, inner)
        self.level: Final = (level,)  # not a child: it sits inside `inner`
        self.end: Final = end

    def begin(self, context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
        begun = self._passed(until(self.level[0], self.end), context, x)
        return begun, begun - x

    def rest(self, context: Context, x: Tensor, begun: Tensor) -> Tensor:
        if self.inner is not self.level[0]:  # an adapter edits the level as a whole
            return self.call(self.inner, context, x)
        return self._passed(since(self.level[0], self.end), context, begun)

    def judged(
        self, context: Context, measured: Tensor, kept: Measure | None
    ) -> tuple[Tensor, Measure]:
        if kept is None:
            return all_due(measured)
        change = relative_change(measured, kept.tensor)
        due = ~(change < self.threshold)  # also where it is not a number
        tensor = torch.where(due[:, None, None, None], measured, kept.tensor)
        return due, Measure(tensor, change)

    def _passed(self, layers: Iterable[nn.Module], context: Context, x: Tensor) -> Tensor:
        for layer in layers:
            x = self.call(layer, context, x)
        return x
