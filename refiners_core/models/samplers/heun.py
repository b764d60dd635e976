"""Heun's method."""

from dataclasses import dataclass

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.two_pass import Pass, TwoPass


@dataclass(frozen=True)
class Heun(TwoPass):
    """Heun's method in sigma (arXiv:2206.00364, algorithm 1 without churn).

    A step of Euler's method is made again with the mean of the slopes at its beginning and its end.

    Example:
        >>> from refiners_core.models.samplers import ScheduleConfig
        >>> sampler = Heun(ScheduleConfig(spacing="trailing")).with_steps(3)
        >>> sampler.timesteps, sampler.step_numbers
        ((999, 666, 666, 332, 332), (0, 0, 1, 1, 2))
    """

    def _second(self, start: Level, end: Level) -> Level:
        return end

    def _half(self, step: Step, current: Pass) -> Tensor:
        return current.start.moved(step.x, current.end, self._slope(step, current.at))

    def _whole(self, step: Step, current: Pass) -> Tensor:
        x, slope = step.past
        return current.start.moved(x, current.end, (slope + self._slope(step, current.at)) / 2)

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        current = self.passes[step.index]
        return (step.x, self._slope(step, current.at)) if current.is_first else ()
