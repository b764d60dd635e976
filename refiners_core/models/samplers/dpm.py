"""DPM-Solver++, multistep."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from refiners_core.models.samplers.multistep import MultistepSampler
from refiners_core.models.samplers.sampler import Step

_FEW_STEPS = 15
"""The number of steps from which on the last one is of second order, if it ends with noise."""


@dataclass(frozen=True)
class DPM2M(MultistepSampler):
    """DPM-Solver++(2M), the multistep solver of arXiv:2211.01095, algorithm 2.

    The first step has no step before it, and the last one ends where `lambda` is infinite: both are
    of first order, which equals DDIM.
    """

    has_first_order_end: bool | None = None
    """Whether a last step that ends with noise is of first order; None for up to 14 steps."""

    memory: ClassVar[int] = 1

    def _advance(self, step: Step) -> Tensor:
        s, t = self.path[step.index], self.path[step.index + 1]
        h = t.log_snr - s.log_snr
        d = self._extrapolated(step)
        return (t.noise / s.noise) * step.x - t.signal * math.expm1(-h) * d

    def _extrapolated(self, step: Step) -> Tensor:
        """Returns `D`: x0 half a step ahead, on the line through the x0 of two steps."""
        x0, index = step.x0, step.index
        if not step.past or index == 0 or self._is_first_order(index):
            return x0
        s, t = self.path[index], self.path[index + 1]
        h, before = t.log_snr - s.log_snr, s.log_snr - self.path[index - 1].log_snr
        return x0 + (h / (2 * before)) * (x0 - step.past[0])

    def _is_first_order(self, index: int) -> bool:
        """Whether the step that ends the path is of first order."""
        if index + 2 < len(self.path):
            return False
        is_first = self.has_first_order_end
        is_first = self.steps < _FEW_STEPS if is_first is None else is_first
        return is_first or self.path[-1].noise == 0


@dataclass(frozen=True)
class DPM2MSDE(DPM2M):
    """SDE-DPM-Solver++(2M): the same solver for the stochastic equation (arXiv:2211.01095, sec. 5).

    As released with Stable Diffusion, it extrapolates to the middle of the step.
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def _advance(self, step: Step) -> Tensor:
        s, t = self.path[step.index], self.path[step.index + 1]
        h = t.log_snr - s.log_snr
        fresh = max(-math.expm1(-2 * h), 0.0)  # the share of the variance
        d = self._extrapolated(step)
        mean = (t.noise / s.noise) * math.exp(-h) * step.x + t.signal * fresh * d
        return mean + t.noise * math.sqrt(fresh) * step.fresh_noise


@dataclass(frozen=True)
class DPM3MSDE(DPM2M):
    """SDE-DPM-Solver++(3M): the parabola through the x0 of three steps, as k-diffusion released it.

    `D1` and `D2` are its first and second derivative at the step, in units of the step. A second
    step reads the line through two.
    """

    memory: ClassVar[int] = 2

    @property
    def is_stochastic(self) -> bool:
        return True

    def _advance(self, step: Step) -> Tensor:
        index, x0 = step.index, step.x0
        s, t = self.path[index], self.path[index + 1]
        h = t.log_snr - s.log_snr
        fresh = max(-math.expm1(-2 * h), 0.0)  # the share of the variance
        x = (t.noise / s.noise) * math.exp(-h) * step.x + t.signal * fresh * x0
        past = step.past[:index]
        if past and h > 0 and t.noise > 0:
            phi_2 = 1 - fresh / (2 * h)
            steps = [self.path[i].log_snr - self.path[i - 1].log_snr for i in (index, index - 1)]
            d1 = (h / steps[0]) * (x0 - past[0])
            if len(past) > 1:
                before = (h / steps[1]) * (past[0] - past[1])
                bend = (d1 - before) * (h / (steps[0] + steps[1]))
                d1 = d1 + bend * (steps[0] / h)
                x = x - t.signal * (phi_2 / (2 * h) - 0.5) * bend
            x = x + t.signal * phi_2 * d1
        return x + t.noise * math.sqrt(fresh) * step.fresh_noise
