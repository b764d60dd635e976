"""The interface of samplers: a noise schedule, the levels that are visited, and a step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Final, NamedTuple, Self

from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.explicit import levels_of_sigmas, levels_of_timesteps
from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.schedule import ScheduleConfig
from refiners_core.sampler_name import Spacing

_LEAST_NOISE: Final = 0.5
"""The noise level below which a network's prediction for pure noise is useless."""


@dataclass(frozen=True)
class Step:
    """The inputs of one step of a sampler, from `path[index]` to `path[index + 1]`, in float32.

    A sampler that runs the network twice in a step of the caller has a step of this kind for each.
    """

    index: int
    """The position of the step in the path."""
    x: Float[Tensor, "rows channels height width"]
    """The latents before the step."""
    x0: Float[Tensor, "rows channels height width"]
    """The clean latents that the prediction implies."""
    eps: Float[Tensor, "rows channels height width"]
    """The noise that the prediction implies."""
    past: Sequence[Float[Tensor, "rows channels height width"]] = ()
    """Tensors that the sampler kept of earlier steps; most keep clean latents, latest first."""
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
    past: tuple[Float[Tensor, "rows channels height width"], ...] = ()
    """Tensors of this step and of earlier ones that the next one reads, float32."""


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
    explicit: tuple[Level, ...] = field(default=(), kw_only=True)
    """The levels of `with_timesteps` or `with_sigmas`, instead of those of the spacing."""

    memory: ClassVar[int] = 0
    """The number of earlier steps whose clean latents a step reads."""
    default_spacing: ClassVar[Spacing] = "leading"
    """The spacing where the schedule does not state one."""
    reads_fractions: ClassVar[bool] = False
    """Whether the network reads timesteps between two training steps."""
    needs_signal: ClassVar[bool] = False
    """Whether latents are divided by their signal, so that pure noise needs a little of it."""

    @property
    def is_stochastic(self) -> bool:
        """Whether a step adds fresh noise."""
        return False

    @property
    def spacing(self) -> Spacing:
        """The spacing of the visited levels: the schedule's, or that of this kind of sampler."""
        return self.schedule.spacing or self.default_spacing

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The level at which each of `steps` steps begins, and the level at which the last ends."""
        levels = self.explicit or self._visited()
        if len(levels) == self.steps:
            levels = (*levels, self._end())
        return tuple(level.finite for level in levels) if self.needs_signal else levels

    @cached_property
    def path(self) -> tuple[Level, ...]:
        """The noise level at each run of the network, and the level at the end of the last."""
        return self.levels[self.skipped :]

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        """The timesteps that the network reads: training steps, or points between two."""
        return tuple(level.timestep for level in self.path[:-1])

    @cached_property
    def step_numbers(self) -> tuple[int, ...]:
        """For each run of the network the step that it belongs to, counted from 0.

        Progress, callbacks and the spans of conditions count these steps.
        """
        return tuple(range(len(self.timesteps)))

    def draws(self, index: int) -> bool:
        """Whether noise is drawn for the run of the network at a position of the path."""
        return self.is_stochastic

    def with_steps(self, steps: int) -> Self:
        """Returns this sampler for another number of steps, with none skipped.

        Raises:
            GenerationError: The schedule does not allow that many steps, or so few steps begin far
                from pure noise.
        """
        other = replace(self, steps=steps, skipped=0, explicit=())
        if other.path[0].noise < _LEAST_NOISE:
            raise GenerationError(
                f"{steps} step begins at training step {other.path[0].timestep:g}, where latents "
                f"were trained with {other.path[0].noise:.0%} noise, but a generation begins with "
                "noise alone.",
                hint='Take more steps, such as steps=4, or sampler="dpm++-2m".',
            )
        return other

    def with_timesteps(self, timesteps: Sequence[float]) -> Self:
        """Returns this sampler for an explicit list of timesteps, with none skipped.

        Args:
            timesteps: The timestep at which each step begins, noisiest first.

        Raises:
            GenerationError: The timesteps are not numbers that decrease within the training steps.
        """
        levels = levels_of_timesteps(self.schedule, timesteps, self.reads_fractions)
        return replace(self, steps=len(levels), skipped=0, explicit=levels)

    def with_sigmas(self, sigmas: Sequence[float]) -> Self:
        """Returns this sampler for an explicit list of sigmas, with none skipped.

        Args:
            sigmas: The sigma at which each step begins, noisiest first, and the one at which the
                last ends, usually 0.

        Raises:
            GenerationError: The sigmas are not numbers that decrease within the trained ones.
        """
        levels = levels_of_sigmas(self.schedule, sigmas, self.reads_fractions)
        return replace(self, steps=len(levels) - 1, skipped=0, explicit=levels)

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
            past: The `past` of the step before; with less, a multistep solver falls back to a lower
                order.
            noise: Standard normal noise; required by stochastic samplers.
        """
        x = latents.float()
        x0, eps = self.schedule.split(x, prediction.float(), self.path[index])
        if self.schedule.limit is not None:
            x0 = self.schedule.limit(x0)
        noise = None if noise is None else noise.float()
        step = self._corrected(Step(index, x, x0, eps, past, noise))
        after = self._advance(step)
        return Stepped(after.to(latents.dtype), x0, self._kept(step))

    def _visited(self) -> tuple[Level, ...]:
        """Returns the noise level at the beginning of each of `steps` steps, noisiest first."""
        return self.schedule.visit(self.steps, spacing=self.spacing)

    def _end(self) -> Level:
        """Returns the noise level at which the last step ends."""
        return CLEAN

    def _corrected(self, step: Step) -> Step:
        """Returns a step whose latents are corrected by the prediction that was made for them."""
        return step

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        """Returns what the next step reads of this one and of earlier ones."""
        return (step.x0, *step.past)[: self.memory]

    @abstractmethod
    def _advance(self, step: Step) -> Tensor:
        """Returns the latents at the end of a step."""
