"""Linear multistep methods, which weight the slopes of earlier steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from torch import Tensor

from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.sigma import SigmaSampler

_GAUSS: Final = 3**-0.5
"""Two points at these distances integrate polynomials of degree 3 exactly over -1...1."""


@dataclass(frozen=True)
class LMS(SigmaSampler):
    """The linear multistep method in sigma of up to four steps (arXiv:2206.00364 names it LMS).

    Adams and Bashforth's method for uneven steps: the polynomial through the last slopes is
    integrated over the step. As released, the order counts the steps that an initial image skips as
    well, while their slopes are missing.
    """

    memory: ClassVar[int] = 3

    def _advance(self, step: Step) -> Tensor:
        at, after = self.path[step.index], self.path[step.index + 1]
        position = self.skipped + step.index
        order = min(position + 1, self.memory + 1)
        sigmas = [self.levels[position - i].sigma for i in range(order)]
        weights = slope_weights(sigmas, after.sigma)
        slopes = (self._slope(step, at), *step.past)
        total = sum(
            (weight * slope for weight, slope in zip(weights[1:], slopes[1:], strict=False)),
            weights[0] * slopes[0],
        )
        return (after.signal / at.signal) * step.x + after.signal * total

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        return (self._slope(step, self.path[step.index]), *step.past)[: self.memory]


def slope_weights(points: Sequence[float], end: float) -> list[float]:
    """Returns the weight of the slope at each point in an integral from the first point to an end.

    Args:
        points: Up to four points, the beginning of the step first.
        end: The end of the step.

    Example:
        >>> [round(weight, 3) for weight in slope_weights([1.0, 0.0], 2.0)]
        [1.5, -0.5]
    """
    middle, half = (points[0] + end) / 2, (end - points[0]) / 2
    weights: list[float] = []
    for i, point in enumerate(points):
        weight = 0.0
        for place in (middle - _GAUSS * half, middle + _GAUSS * half):
            factor = half
            for j, other in enumerate(points):
                if i != j:
                    factor *= (place - other) / (point - other)
            weight += factor
        weights.append(weight)
    return weights
