"""UniPC, a predictor and a corrector that share predictions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.multistep import MultistepSampler
from refiners_core.models.samplers.sampler import Step

Scale = Literal["bh1", "bh2"]
"""The function `B(h)` of UniPC: the length of the step, or `exp(h) - 1`."""


@dataclass(frozen=True)
class UniPC(MultistepSampler):
    """UniPC with predictions of clean latents (arXiv:2302.04867, algorithms 1, 2 and 5 to 8).

    A prediction first corrects the latents that it was made for, then predicts the next ones, so
    the corrector costs no run of the network. Towards the end the order falls to one.

    Raises:
        GenerationError: `order` is below 1, or `scale` is not `bh1` or `bh2`.
    """

    order: int = 2
    """The number of predictions that a step reads."""
    scale: Scale = "bh2"
    """The function `B(h)`: `bh1` suits few steps without guidance."""

    def __post_init__(self) -> None:
        if self.order < 1 or self.scale not in get_args(Scale):
            raise GenerationError(
                f"the order of UniPC is at least 1 and its scale is bh1 or bh2, not {self.order} "
                f"and {self.scale!r}.",
                hint='Try UniPC(order=2, scale="bh2").',
            )

    def _corrected(self, step: Step) -> Step:
        if not step.past or step.index == 0:
            return step
        x, *known = step.past
        index = step.index - 1
        order = self._order(index, len(known))
        x = self._moved(index, x, known[:order], step.x0)
        return replace(step, x=x)

    def _advance(self, step: Step) -> Tensor:
        if self.path[step.index + 1].noise == 0:
            return step.x0
        known = (step.x0, *step.past[1:])
        return self._moved(step.index, step.x, known[: self._order(step.index, len(known))])

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        return (step.x, step.x0, *step.past[1:])[: self.order + 1]

    def _order(self, index: int, known: int) -> int:
        return min(self.order, len(self.path) - 1 - index, known, index + 1)

    def _moved(
        self, index: int, x: Tensor, known: Sequence[Tensor], reached: Tensor | None = None
    ) -> Tensor:
        """Returns the latents at the end of a step.

        Args:
            index: The position of the step in the path.
            x: The latents at its beginning.
            known: The clean latents predicted at its beginning and earlier, latest first.
            reached: The clean latents predicted at its end, for the corrector.
        """
        s, t = self.path[index], self.path[index + 1]
        h = t.log_snr - s.log_snr
        ratios = [(self.path[index - k].log_snr - s.log_snr) / h for k in range(1, len(known))]
        first = known[0]
        slopes = [(x0 - first) / ratio for x0, ratio in zip(known[1:], ratios, strict=True)]
        if reached is not None:
            ratios, slopes = [*ratios, 1.0], [*slopes, reached - first]
        growth = math.expm1(-h)
        scale = -h if self.scale == "bh1" else growth
        moved = (t.noise / s.noise) * x - t.signal * growth * first
        for weight, slope in zip(_weights(ratios, -h, scale), slopes, strict=True):
            moved = moved - t.signal * scale * weight * slope
        return moved


def _weights(ratios: Sequence[float], h: float, scale: float) -> list[float]:
    """Returns the weights `a` of UniPC (arXiv:2302.04867, equation 5).

    As released, a single weight is one half.

    Args:
        ratios: The places of the predictions, as shares of the step from its beginning.
        h: The negative length of the step.
        scale: `B(h)`.
    """
    if len(ratios) == 1:
        return [0.5]
    sides: list[float] = []
    phi, factorial = math.expm1(h) / h - 1, 1
    for n in range(1, len(ratios) + 1):
        sides.append(phi * factorial / scale)
        factorial *= n + 1
        phi = phi / h - 1 / factorial
    return _solution([[ratio**n for ratio in ratios] for n in range(len(ratios))], sides)


def _solution(matrix: list[list[float]], sides: list[float]) -> list[float]:
    """Returns the solution of a small linear system, by elimination with the largest pivots."""
    rows = [[*row, side] for row, side in zip(matrix, sides, strict=True)]
    size = len(rows)
    for i in range(size):
        pivot = max(range(i, size), key=lambda row, i=i: abs(rows[row][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for other in range(size):
            if other != i:
                factor = rows[other][i] / rows[i][i]
                pairs = zip(rows[other], rows[i], strict=True)
                rows[other] = [a - factor * b for a, b in pairs]
    return [rows[i][size] / rows[i][i] for i in range(size)]
