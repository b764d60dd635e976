"""Samplers that run the network twice in a step."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.sigma import SigmaSampler


class Pass(NamedTuple):
    """One run of the network, in a step from one level to another."""

    number: int
    """The step, counted from 0."""
    at: Level
    """The level of the latents that the network reads."""
    start: Level
    """The level at which the step begins."""
    end: Level
    """The level at which the step ends."""

    @property
    def is_first(self) -> bool:
        """Whether the network reads the latents of the beginning of the step."""
        return self.at is self.start


@dataclass(frozen=True)
class TwoPass(SigmaSampler):
    """A sampler whose steps read the network at their beginning and at a second level.

    A step that ends without noise has one pass. The path has the level of each pass, so with n
    steps it has up to 2 n - 1 passes; `step_numbers` names the step of each.
    """

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The runs of the network, in order."""
        passes: list[Pass] = []
        for number, (start, end) in enumerate(self._steps()):
            passes.append(Pass(number, start, start, end))
            if end.noise > 0:
                passes.append(Pass(number, self._second(start, end), start, end))
        return tuple(passes)

    @cached_property
    def path(self) -> tuple[Level, ...]:
        return (*(item.at for item in self.passes), self.levels[-1])

    @cached_property
    def step_numbers(self) -> tuple[int, ...]:
        return tuple(item.number for item in self.passes)

    def _steps(self) -> Sequence[tuple[Level, Level]]:
        """Returns the level at which each step begins, and the one at which it ends."""
        return [*pairwise(self.levels[self.skipped :])]

    @abstractmethod
    def _second(self, start: Level, end: Level) -> Level:
        """Returns the level of the second pass of a step that does not end without noise."""

    def _advance(self, step: Step) -> Tensor:
        current = self.passes[step.index]
        if current.is_first and current.end.noise == 0:
            return current.end.signal * step.x0
        return self._half(step, current) if current.is_first else self._whole(step, current)

    @abstractmethod
    def _half(self, step: Step, current: Pass) -> Tensor:
        """Returns the latents that the second pass reads."""

    @abstractmethod
    def _whole(self, step: Step, current: Pass) -> Tensor:
        """Returns the latents at the end of the step, after its second pass."""

    def _between(self, start: Level, end_sigma: float) -> Level:
        """Returns the level in the middle of a level and a sigma, in the logarithm of sigma."""
        sigma = (start.sigma * end_sigma) ** 0.5
        return Level.of_sigma(sigma, self.schedule.trained.timestep(sigma))
