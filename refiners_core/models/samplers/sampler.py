"""What every sampler says, so that a step of it can stand in a tree."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.schedule import ScheduleConfig


@dataclass(frozen=True)
class Sampler(ABC):
    """A schedule and an update rule, as a value: without state, so threads may share it.

    Latents are variance preserving throughout: `sqrt(a_t) x0 + sqrt(1 - a_t) eps` at every step.
    """

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The noise that the network was trained with."""
    steps: int = 30
    """How many steps lead from pure noise to a picture."""
    skipped: int = 0
    """How many of the first of them are left out: what is there before is not pure noise."""

    @cached_property
    def timesteps(self) -> tuple[int, ...]:
        """The training steps that are visited, noisiest first."""
        return self.schedule.timesteps(self.steps)[self.skipped :]

    def with_steps(self, steps: int) -> Self:
        """Returns this sampler for another number of steps, none left out.

        Raises:
            GenerationError: The schedule has no such number of steps.
        """
        self.schedule.timesteps(steps)
        return replace(self, steps=steps, skipped=0)

    def with_strength(self, strength: float) -> Self:
        """Returns this sampler without its first steps: it goes `strength`, in 0...1, of the way.

        Raises:
            GenerationError: No step is left.
        """
        kept = min(int(self.steps * strength), self.steps)
        if kept < 1:
            raise GenerationError(
                f"strength {strength} of {self.steps} steps leaves none.",
                hint=f"Take strength >= {1 / self.steps:.2g}, or more steps.",
            )
        return replace(self, skipped=self.steps - kept)

    def after(self, index: int) -> int | None:
        """Returns the training step that a step leads to; None where the last one ends."""
        return self.timesteps[index + 1] if index + 1 < len(self.timesteps) else None

    @abstractmethod
    def step(
        self,
        latents: Float[Tensor, "rows channels height width"],
        prediction: Float[Tensor, "rows channels height width"],
        index: int,
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the latents after a step.

        Args:
            latents: What the network was asked about, at `timesteps[index]`.
            prediction: What it says, in the schedule's terms.
            index: The position of the step in `timesteps`.
        """
