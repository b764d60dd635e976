"""DPM-Solver++, of second order over two steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler


@dataclass(frozen=True)
class DPM2M(Sampler):
    """DPM-Solver++(2M), the multistep solver of arXiv:2211.01095, algorithm 2.

    The first step has no other before it, and the last one ends where `lambda` is infinite: both
    are of first order, which there is DDIM's.
    """

    memory: ClassVar[int] = 1

    def _visited(self) -> tuple[Level, ...]:
        # As released: where the spacing reaches down to the first training step, one level more is
        # laid out and the last one left out.
        spare = int(self.schedule.spacing in ("leading", "linspace"))
        return tuple(one.finite for one in self.schedule.visit(self.steps + spare)[: self.steps])

    def _advance(
        self,
        index: int,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        past: Sequence[Tensor],
        noise: Tensor | None,
    ) -> Tensor:
        s, t = self.path[index], self.path[index + 1]
        h = t.log_snr - s.log_snr
        d = self._extrapolated(index, x0, past)
        return (t.noise / s.noise) * x - t.signal * math.expm1(-h) * d

    def _extrapolated(self, index: int, x0: Tensor, past: Sequence[Tensor]) -> Tensor:
        """Returns `D`: x0 half a step ahead, by the line through this one and the one before."""
        s, t = self.path[index], self.path[index + 1]
        if not past or index == 0 or t.noise == 0:
            return x0
        r = (s.log_snr - self.path[index - 1].log_snr) / (t.log_snr - s.log_snr)
        return x0 + (x0 - past[0]) / (2 * r)


@dataclass(frozen=True)
class DPM2MSDE(DPM2M):
    """SDE-DPM-Solver++(2M): the same for the stochastic way (arXiv:2211.01095, section 5).

    As released with Stable Diffusion, which extrapolates in the middle of the step.
    """

    @property
    def is_stochastic(self) -> bool:
        return True

    def _advance(
        self,
        index: int,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        past: Sequence[Tensor],
        noise: Tensor | None,
    ) -> Tensor:
        assert noise is not None
        s, t = self.path[index], self.path[index + 1]
        h = t.log_snr - s.log_snr
        fresh = -math.expm1(-2 * h)  # of the variance
        d = self._extrapolated(index, x0, past)
        mean = (t.noise / s.noise) * math.exp(-h) * x + t.signal * fresh * d
        return mean + t.noise * math.sqrt(fresh) * noise
