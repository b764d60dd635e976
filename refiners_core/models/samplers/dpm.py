"""DPM-Solver++, second-order multistep."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler, Step


@dataclass(frozen=True)
class DPM2M(Sampler):
    """DPM-Solver++(2M), the multistep solver of arXiv:2211.01095, algorithm 2.

    The first step has no step before it, and the last one ends where `lambda` is infinite: both are
    of first order, which equals DDIM.
    """

    memory: ClassVar[int] = 1

    def _visited(self) -> tuple[Level, ...]:
        # As released: if the spacing reaches the first training step, it is computed for one more
        # level, and the last level is dropped.
        spare = int(self.schedule.spacing in ("leading", "linspace"))
        return tuple(
            level.finite for level in self.schedule.visit(self.steps + spare)[: self.steps]
        )

    def _advance(self, step: Step) -> Tensor:
        s, t = self.path[step.index], self.path[step.index + 1]
        h = t.log_snr - s.log_snr
        d = self._extrapolated(step)
        return (t.noise / s.noise) * step.x - t.signal * math.expm1(-h) * d

    def _extrapolated(self, step: Step) -> Tensor:
        """Returns `D`: x0 half a step ahead, on the line through the x0 of two steps."""
        x0, index = step.x0, step.index
        s, t = self.path[index], self.path[index + 1]
        if not step.past or index == 0 or t.noise == 0:
            return x0
        r = (s.log_snr - self.path[index - 1].log_snr) / (t.log_snr - s.log_snr)
        return x0 + (x0 - step.past[0]) / (2 * r)


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
        fresh = -math.expm1(-2 * h)  # the share of the variance
        d = self._extrapolated(step)
        mean = (t.noise / s.noise) * math.exp(-h) * step.x + t.signal * fresh * d
        return mean + t.noise * math.sqrt(fresh) * step.fresh_noise
