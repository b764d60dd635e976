"""The levels to which samplers step that were released with a fixed stride."""

from dataclasses import dataclass
from functools import cached_property

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler


@dataclass(frozen=True)
class StrideSampler(Sampler):
    """A sampler whose steps have the length of the rounded stride, as released.

    Where the stride does not divide the number of training steps, a step ends a little beside the
    next visited level; with `leading` it ends there. Explicit lists and spacings of sigma have no
    stride: their steps end at the next visited level.
    """

    @cached_property
    def stride(self) -> int | None:
        """The number of training steps in a step; None without a fixed one."""
        if self.explicit or self.spacing not in ("leading", "linspace", "trailing"):
            return None
        return self.schedule.train_steps // self.steps

    def _end(self) -> Level:
        return self.schedule.end

    def _after(self, position: int) -> Level:
        """Returns the level at which the step from `levels[position]` ends."""
        if self.stride is None:
            return self.levels[position + 1]
        timestep = self.levels[position].timestep - self.stride
        return self.schedule.level(timestep) if timestep >= 0 else self.levels[-1]
