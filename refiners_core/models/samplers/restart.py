"""Restart sampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from torch import Tensor

from refiners_core.models.samplers.heun import Heun
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.spacing import spaced_levels, spaced_sigmas
from refiners_core.models.samplers.two_pass import Pass

_FEWEST: Final = 20
"""The number of steps from which on there is a restart."""
_MANY: Final = 36
"""The number of steps from which on there are two."""
_SHORT: Final = 9
"""The number of steps of a single restart."""


@dataclass(frozen=True)
class Restart(Heun):
    """Restart sampling with Heun's steps (arXiv:2306.14878, algorithm 1).

    At a low level it adds fresh noise up to a higher one, and comes down again. As in web
    interfaces, with 20 steps or more 9 of them are a restart, with 36 or more half of them are two,
    and then all levels are Karras' between the first and the last one of the spacing; with fewer
    steps it is Heun's method.

    Raises:
        GenerationError: The steps do not suffice.
    """

    low: float = 0.1
    """About the sigma at which noise is added."""
    high: float = 2.0
    """About the sigma up to which noise is added."""

    @property
    def is_stochastic(self) -> bool:
        return True

    def draws(self, index: int) -> bool:
        return self._noisier(index) is not None

    def _steps(self) -> Sequence[tuple[Level, Level]]:
        levels = self.levels[self.skipped :]
        count = len(levels) - 1
        if count < _FEWEST:
            return [*pairwise(levels)]
        length, times = (count // 4, 2) if count >= _MANY else (_SHORT, 1)
        main = [*self._karras(count - length * times, levels[-2], levels[0]), levels[-1]]
        lowest, highest = _nearest(main, self.low), _nearest(main, self.high)
        steps = [*pairwise(main)]
        if highest >= lowest:
            return steps
        again = [*pairwise(self._karras(length + 1, main[lowest], main[highest]))]
        return [*steps[:lowest], *(again * times), *steps[lowest:]]

    def _karras(self, count: int, low: Level, high: Level) -> tuple[Level, ...]:
        sigmas = spaced_sigmas("karras", count, low.sigma, high.sigma)
        return spaced_levels(self.schedule.trained, sigmas, None)

    def _noisier(self, index: int) -> Level | None:
        """Returns the level to which noise is added after a pass, if it is."""
        after = index + 1
        if after >= len(self.passes) or not self.passes[after].is_first:
            return None
        up, end = self.passes[after].start, self.passes[index].end
        return up if up.sigma > end.sigma * (1 + 1e-6) else None

    def _whole(self, step: Step, current: Pass) -> Tensor:
        x = super()._whole(step, current)
        up = self._noisier(step.index)
        if up is None:
            return x
        share = up.signal / current.end.signal
        return (
            share * x + (up.noise**2 - (share * current.end.noise) ** 2) ** 0.5 * step.fresh_noise
        )


def _nearest(levels: Sequence[Level], sigma: float) -> int:
    """Returns the position of the level whose sigma is nearest to one."""
    return min(range(len(levels)), key=lambda i: abs(levels[i].sigma - sigma))
