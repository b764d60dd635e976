"""What every sampler says, so that a step of it can stand in a tree."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Final, NamedTuple, Self

from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.schedule import ScheduleConfig

_LEAST_NOISE: Final = 0.5
"""Where less of the latents is noise, what a network says of pure noise is noise again."""


class Stepped(NamedTuple):
    """What a step leads to."""

    latents: Float[Tensor, "rows channels height width"]
    """The latents after it."""
    clean: Float[Tensor, "rows channels height width"]
    """The clean latents x0 that the prediction implies, float32."""


@dataclass(frozen=True)
class Sampler(ABC):
    """A schedule and an update rule, as a value: without state, so threads may share it.

    Latents are variance preserving throughout: `sqrt(a_t) x0 + sqrt(1 - a_t) eps` at every step,
    whatever a paper's own letters stand for. What a step needs of the steps before it and of
    chance it is given, so that the same call gives the same result.
    """

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The noise that the network was trained with."""
    steps: int = 30
    """How many steps lead from pure noise to a picture."""
    skipped: int = 0
    """How many of the first of them are left out: what is there before is not pure noise."""

    memory: ClassVar[int] = 0
    """Of how many steps before it a step looks at the clean latents."""

    @property
    def is_stochastic(self) -> bool:
        """Whether a step adds noise that was drawn for it."""
        return False

    @cached_property
    def path(self) -> tuple[Level, ...]:
        """The noise at the beginning of each step, and where the last one ends."""
        return (*self._visited(), self._end())[self.skipped :]

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        """What the network is told at each step: training steps, or places between two."""
        return tuple(level.timestep for level in self.path[:-1])

    def with_steps(self, steps: int) -> Self:
        """Returns this sampler for another number of steps, none left out.

        Raises:
            GenerationError: The schedule has no such number of steps, or so few of them begin far
                from noise.
        """
        other = replace(self, steps=steps, skipped=0)
        assert len(other.path) == steps + 1
        if other.path[0].noise < _LEAST_NOISE:
            raise GenerationError(
                f"{steps} step begins at training step {other.path[0].timestep:g}, where "
                f"{other.path[0].noise:.0%} of what the network knows is noise; a generation "
                "begins with nothing else.",
                hint='Take more steps, such as steps=4, or sampler="dpm++-2m".',
            )
        return other

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

    def begin(
        self, noise: Float[Tensor, "rows channels height width"]
    ) -> Float[Tensor, "rows channels height width"]:
        """Returns the latents of a picture of which nothing is known yet."""
        return noise

    def step(
        self,
        latents: Float[Tensor, "rows channels height width"],
        prediction: Float[Tensor, "rows channels height width"],
        index: int,
        *,
        past: Sequence[Float[Tensor, "rows channels height width"]] = (),
        noise: Float[Tensor, "rows channels height width"] | None = None,
    ) -> Stepped:
        """Returns the latents after a step, computed in float32 and given back as they came.

        Args:
            latents: What the network was asked about, at `path[index]`.
            prediction: What it says, in the schedule's terms.
            index: The position of the step.
            past: The clean latents of up to `memory` steps before, latest first; a step that finds
                too few makes do with a lower order.
            noise: What chance adds, from a normal distribution; needed by stochastic samplers.
        """
        x = latents.float()
        x0, eps = self.schedule.split(x, prediction.float(), self.path[index])
        after = self._advance(index, x, x0, eps, past, None if noise is None else noise.float())
        return Stepped(after.to(latents.dtype), x0)

    def _visited(self) -> tuple[Level, ...]:
        """Returns the noise at the beginning of each of `steps` steps, noisiest first."""
        return self.schedule.visit(self.steps)

    def _end(self) -> Level:
        """Returns where the last step ends."""
        return CLEAN

    @abstractmethod
    def _advance(
        self,
        index: int,
        x: Tensor,
        x0: Tensor,
        eps: Tensor,
        past: Sequence[Tensor],
        noise: Tensor | None,
    ) -> Tensor:
        """Returns `x` at the end of a step, of the x0 and eps that the network sees in it."""
