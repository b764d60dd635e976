"""TeaCache: the network is skipped until the changes of its input add up."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_cache.change import Head, Measure, SkipByChange, all_due, relative_change
from refiners_core import Chain, Context, Seat
from refiners_core.errors import AdapterError
from refiners_core.layers import ResidualBlock
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import number


class TeaCache(SkipByChange):
    """Skips the network until changes of its input add up to a threshold (arXiv:2411.19108).

    The measured input is that of the first residual block, convolved and shifted by the embedded
    timestep. Its relative changes from call to call, each mapped by a polynomial, are summed
    (equation 6); the network runs where the sum reaches the threshold, and at the first and the
    last call.

    Args:
        threshold: The sum from which on the network runs.
        rescale: The coefficients of the polynomial, the highest power first. The authors publish
            some for transformers; none are known for UNets.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `threshold` is negative or not finite, or `rescale` is not finite numbers.

    Example:
        >>> TeaCache(name="teacache").rescale
        (1.0, 0.0)
    """

    def __init__(
        self, *, threshold: float = 0.2, rescale: Sequence[float] = (1.0, 0.0), **options: Any
    ) -> None:
        super().__init__(threshold=threshold, usual=0.2, **options)
        if not isinstance(rescale, list | tuple) or not rescale:
            raise AdapterError(
                f"rescale is a list of coefficients, not {rescale!r}.", hint="Try rescale=[1, 0]."
            )
        self.rescale: Final = tuple(
            [number("each coefficient of rescale", item, 1.0) for item in rescale]
        )

    def head(self, model: LatentDiffusion) -> Callable[[nn.Module, Seat], nn.Module]:
        """Returns a function that makes the layer at the first level."""
        block = model.slot("unet.residual")[0].layer
        if not isinstance(block, ResidualBlock) or "shift" not in dict(
            block.body.children_by_name()
        ):
            raise AdapterError(
                f"{self.key} measures the input of a residual block that the timestep shifts; the "
                f"first one of this model is a {type(block).__name__}.",
                hint='Try load_adapter("first-block-cache", model).',
            )
        body: Chain = block.body

        def head(inner: nn.Module, seat: Seat) -> nn.Module:
            return TeaHead(self.key, self.threshold, self.rescale, body, inner)

        return head


class TeaHead(Head):
    """Sums the changes of the input since the network ran.

    Args:
        key: The key of the adapter.
        threshold: The sum from which on the network runs.
        rescale: The coefficients of the polynomial of a change, the highest power first.
        body: The layers of the first residual block.
        inner: The first level.
    """

    def __init__(
        self, key: str, threshold: float, rescale: Sequence[float], body: Chain, inner: nn.Module
    ) -> None:
        super().__init__(key, threshold, inner)
        self.rescale: Final = tuple(rescale)
        self.body: Final = (body,)  # not a child: it stays where it is in the tree

    def begin(self, context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
        value = x
        for label, child in self.body[0].children_by_name():
            value = self.call(child, context, value)
            if label.partition("+")[0] == "shift":
                break
        return x, value

    def judged(
        self, context: Context, measured: Tensor, kept: Measure | None
    ) -> tuple[Tensor, Measure]:
        if kept is None or context.get("is_first_step") or context.get("is_last_step"):
            return all_due(measured)
        total = kept.total + self._rescaled(relative_change(measured, kept.tensor))
        due = ~(total < self.threshold)  # also where it is not a number
        return due, Measure(measured, total.masked_fill(due, 0.0))

    def _rescaled(self, change: Tensor) -> Tensor:
        value = torch.zeros_like(change)
        for coefficient in self.rescale:
            value = value * change + coefficient
        return value
