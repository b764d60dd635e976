"""The interface of samplers: a noise schedule, the levels that are visited, and a step."""

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
"""The noise level below which a network's prediction for pure noise is useless."""


@dataclass(frozen=True)
class Step:
    """The inputs of one step of a sampler, from `path[index]` to `path[index + 1]`, in float32."""

    index: int
    """The position of the step in the path."""
    x: Float[Tensor, "rows channels height width"]
    """The latents before the step."""
    x0: Float[Tensor, "rows channels height width"]
    """The clean latents that the prediction implies."""
    eps: Float[Tensor, "rows channels height width"]
    """The noise that the prediction implies."""
    past: Sequence[Float[Tensor, "rows channels height width"]] = ()
    """The clean latents of up to `memory` earlier steps, latest first."""
    noise: Float[Tensor, "rows channels height width"] | None = None
    """Standard normal noise drawn for the step, for a stochastic sampler."""

    @property
    def fresh_noise(self) -> Float[Tensor, "rows channels height width"]:
        """The noise drawn for the step; only stochastic samplers read it."""
        assert self.noise is not None
        return self.noise


class Stepped(NamedTuple):
    """The result of a step."""

    latents: Float[Tensor, "rows channels height width"]
    """The latents after the step."""
    clean: Float[Tensor, "rows channels height width"]
    """The clean latents x0 that the prediction implies, float32."""


@dataclass(frozen=True)
class Sampler(ABC):
    """A noise schedule and an update rule, as a value: it has no state, so threads may share it.

    Latents are variance preserving throughout: `sqrt(a_t) x0 + sqrt(1 - a_t) eps` at every step,
    whatever the letters of a paper mean. Earlier predictions and random noise are arguments of a
    step, so the same call gives the same result.
    """

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The noise that the network was trained with."""
    steps: int = 30
    """The number of steps from pure noise to an image."""
    skipped: int = 0
    """The number of first steps that are left out, because the latents are not pure noise."""

    memory: ClassVar[int] = 0
    """The number of earlier steps whose clean latents a step reads."""

    @property
    def is_stochastic(self) -> bool:
        """Whether a step adds fresh noise."""
        return False

    @cached_property
    def path(self) -> tuple[Level, ...]:
        """The noise level at the beginning of each step, and the level at the end of the last."""
        return (*self._visited(), self._end())[self.skipped :]

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        """The timesteps that the network reads: training steps, or points between two."""
        return tuple(level.timestep for level in self.path[:-1])

    def with_steps(self, steps: int) -> Self:
        """Returns this sampler for another number of steps, with none skipped.

        Raises:
            GenerationError: The schedule does not allow that many steps, or so few steps begin far
                from pure noise.
        """
        other = replace(self, steps=steps, skipped=0)
        assert len(other.path) == steps + 1
        if other.path[0].noise < _LEAST_NOISE:
            raise GenerationError(
                f"{steps} step begins at training step {other.path[0].timestep:g}, where latents "
                f"were trained with {other.path[0].noise:.0%} noise, but a generation begins with "
                "noise alone.",
                hint='Take more steps, such as steps=4, or sampler="dpm++-2m".',
            )
        return other

    def with_strength(self, strength: float) -> Self:
        """Returns this sampler with the last steps only, the share `strength` of them, in 0...1.

        Raises:
            GenerationError: The share is less than one step.
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
        """Returns the latents before the first step, given standard normal noise."""
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
        """Computes a step in float32; the latents after it have the dtype of those before it.

        Args:
            latents: The latents at `path[index]`, which the network has read.
            prediction: The network's prediction, of the kind that the schedule names.
            index: The position of the step in the path.
            past: The clean latents of up to `memory` earlier steps, latest first; with fewer, a
                multistep solver falls back to a lower order.
            noise: Standard normal noise; required by stochastic samplers.
        """
        x = latents.float()
        x0, eps = self.schedule.split(x, prediction.float(), self.path[index])
        noise = None if noise is None else noise.float()
        after = self._advance(Step(index, x, x0, eps, past, noise))
        return Stepped(after.to(latents.dtype), x0)

    def _visited(self) -> tuple[Level, ...]:
        """Returns the noise level at the beginning of each of `steps` steps, noisiest first."""
        return self.schedule.visit(self.steps)

    def _end(self) -> Level:
        """Returns the noise level at which the last step ends."""
        return CLEAN

    @abstractmethod
    def _advance(self, step: Step) -> Tensor:
        """Returns the latents at the end of a step."""
