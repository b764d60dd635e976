"""The exponential integrator of DEIS."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.multistep import MultistepSampler
from refiners_core.models.samplers.sampler import Step

_FEW_STEPS = 15
"""The number of steps from which on the last ones keep the order."""


@dataclass(frozen=True)
class DEIS(MultistepSampler):
    """DEIS in the logarithm of sigma, `rho AB` (arXiv:2204.13902, section 3.3).

    The polynomial in `log sigma` through the last predictions of noise is integrated over the step.
    As released, the last step ends at training step 0 rather than without noise.

    Raises:
        GenerationError: `order` is not 1, 2 or 3.
    """

    order: int = 2
    """The number of predictions that a step reads, 1 to 3."""

    memory: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise GenerationError(
                f"the order of DEIS is 1, 2 or 3, not {self.order}.", hint="Try DEIS(order=2)."
            )

    def _end(self) -> Level:
        return self.schedule.level(0)

    def _advance(self, step: Step) -> Tensor:
        at, after = self.path[step.index], self.path[step.index + 1]
        slopes = (self._noise(step, at), *step.past)[: self._order(step)]
        points = [self.path[step.index - i].sigma for i in range(len(slopes))]
        if after.sigma == 0:  # an explicit list may end there, where the logarithm does not
            points = points[:1]
        weights = log_weights(points, after.sigma)
        total = sum(
            (weight * slope for weight, slope in zip(weights[1:], slopes[1:], strict=False)),
            weights[0] * slopes[0],
        )
        return (after.signal / at.signal) * step.x + after.signal * total

    def _order(self, step: Step) -> int:
        left = len(self.path) - 1 - step.index
        most = left if self.steps < _FEW_STEPS else self.order
        return min(self.order, most, len(step.past) + 1, step.index + 1)

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        return (self._noise(step, self.path[step.index]), *step.past)[: self.memory]

    def _noise(self, step: Step, at: Level) -> Tensor:
        if self.schedule.limit is None:
            return step.eps
        return (step.x - at.signal * step.x0) / at.noise


def log_weights(points: Sequence[float], end: float) -> list[float]:
    """Returns the weight of the value at each point in an integral from the first point to an end.

    The integrand is the polynomial in the logarithm through the values.

    Args:
        points: Up to three points above 0, the beginning of the step first.
        end: The end of the step; 0 only with one point.

    Example:
        >>> log_weights([3.0], 1.0)
        [-2.0]
    """
    logs = [math.log(point) for point in points]
    weights: list[float] = []
    for i, log in enumerate(logs):
        others = [other for j, other in enumerate(logs) if j != i]
        scale = math.prod(log - other for other in others)
        weights.append((_integral(others, end) - _integral(others, points[0])) / scale)
    return weights


def _integral(roots: Sequence[float], point: float) -> float:
    """Returns an antiderivative of `(log x - root) (log x - root) ...` at a point.

    With `u = log x` it is that of `p(u) exp(u)`, which is `(p - p' + p'' ...) exp(u)`.
    """
    if not roots:
        return point
    coefficients = [1.0]  # of p, the constant first
    for root in roots:
        shifted = [0.0, *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, 0.0], strict=True)]
    u, total, sign = math.log(point), 0.0, 1.0
    while coefficients:
        total += sign * sum(c * u**n for n, c in enumerate(coefficients))
        coefficients, sign = [n * c for n, c in enumerate(coefficients)][1:], -sign
    return total * point
