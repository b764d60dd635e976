"""ReNoise: each step of the way back is repeated with what it led to."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, NamedTuple, Self

from torch import Tensor

from refiners_core.errors import AdapterError
from refiners_core.models.samplers import Inverse, Level, Sampler, Step
from refiners_core.option import whole
from refiners_inversion.adapter import DdimInversion
from refiners_inversion.regular import Regularisation

EARLY: Final = 0.25
"""The share of the training steps, from the clean picture on, that count as early."""

Span = tuple[int, int]
"""The first of some runs of the network in a step, and the one after the last."""


@dataclass(frozen=True)
class Repeats:
    """How often a step of the way back runs the network, and which predictions count.

    Raises:
        AdapterError: A number is not valid.
    """

    count: int = 1
    """The runs of the network in a step after the first one."""
    early_count: int = 5
    """The most of them in early steps."""
    average: Span = (8, 10)
    """The runs whose predictions are averaged; without any, the last one counts."""
    early_average: Span = (0, 5)
    """The same in early steps."""

    def __post_init__(self) -> None:
        counts: dict[str, object] = {"repeats": self.count, "early_repeats": self.early_count}
        for name, value in counts.items():
            whole(name, value, 4, low=0)
        for name in ("average", "early_average"):
            span: Any = getattr(self, name)
            is_span = isinstance(span, tuple | list) and len(span) == 2
            if not is_span or not all(isinstance(i, int) and i >= 0 for i in span):
                raise AdapterError(
                    f"{name} is the first run that counts and the one after the last, not "
                    f"{span!r}.",
                    hint=f"Try {name}=(0, 5).",
                )


class Run(NamedTuple):
    """One run of the network on the way back."""

    number: int
    """The step, counted from 0."""
    start: Level
    """The level at which the step begins."""
    end: Level
    """The level to which it leads, whose timestep the network reads."""
    repeat: int
    """The position among the runs of the step."""
    is_last: bool
    """Whether the step ends with it."""
    average: Span
    """The runs whose predictions are averaged."""

    @property
    def at(self) -> Level:
        """The level of the latents that the network reads."""
        return self.start if self.repeat == 0 else self.end


@dataclass(frozen=True)
class RepeatedInverse(Inverse):
    """Walks the levels of a sampler backwards, each step several times (arXiv:2403.14602,
    algorithm 1).

    The first run of the network reads the latents before the step, as DDIM inversion does, and the
    next ones read those to which the last run led. A step always starts from the latents before it.
    """

    repeats: Repeats = field(default_factory=Repeats, kw_only=True)
    """How often each step runs."""
    regularisation: Regularisation = field(default_factory=Regularisation, kw_only=True)
    """How predictions are made to look like noise."""

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the network, in order."""
        levels, most = self.levels[self.skipped :], self.schedule.train_steps
        runs: list[Run] = []
        for number, (start, end) in enumerate(pairwise(levels)):
            is_early = end.timestep < EARLY * most
            wanted = self.repeats
            count = min(wanted.count, wanted.early_count) if is_early else wanted.count
            average = wanted.early_average if is_early else wanted.average
            runs += [Run(number, start, end, i, i == count, average) for i in range(count + 1)]
        return tuple(runs)

    @cached_property
    def path(self) -> tuple[Level, ...]:
        return (*(run.at for run in self.runs), self.levels[-1])

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        return tuple(run.end.timestep for run in self.runs)

    @cached_property
    def step_numbers(self) -> tuple[int, ...]:
        return tuple(run.number for run in self.runs)

    def with_steps(self, steps: int) -> Self:
        """Returns this sampler for another number of steps of the way forward.

        Raises:
            GenerationError: The schedule does not allow that many steps.
        """
        other = super().with_steps(steps)
        return replace(other, repeats=self.repeats, regularisation=self.regularisation)

    def with_strength(self, strength: float) -> Self:
        """Returns this sampler up to the level at which the way forward of that strength begins.

        Raises:
            GenerationError: The share is less than one step.
        """
        other = super().with_strength(strength)
        return replace(other, repeats=self.repeats, regularisation=self.regularisation)

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        run = self.runs[step.index]
        if run.is_last:
            return ()
        mean = self._mean(step, run)
        start = self._start(step, run)
        return (start,) if mean is None else (start, mean)

    def _advance(self, step: Step) -> Tensor:
        run = self.runs[step.index]
        mean = self._mean(step, run) if run.is_last else None
        eps = step.eps if mean is None else mean
        if mean is not None or run.repeat >= run.average[0]:
            eps = self.regularisation(eps)
        return run.start.moved(self._start(step, run), run.end, eps)

    def _start(self, step: Step, run: Run) -> Tensor:
        """Returns the latents before the step of a run."""
        return step.x if run.repeat == 0 else step.past[0]

    def _mean(self, step: Step, run: Run) -> Tensor | None:
        """Returns the mean of the predictions that count so far; None without any."""
        first, end = run.average
        if not first <= run.repeat < end:
            return step.past[1] if len(step.past) > 1 else None
        before = run.repeat - first
        if before == 0:
            return step.eps
        return (before * step.past[1] + step.eps) / (before + 1)


class ReNoise(DdimInversion):
    """Begins a generation from the noise that leads to a picture (arXiv:2403.14602).

    As `DdimInversion`, but each step of the way back runs the network again on the latents to which
    it led, so that the way forward leads to the picture more closely. A step costs `repeats` more
    runs. By default as in the authors' example for Stable Diffusion with DDIM: one more run in
    each step, and the mean of both predictions in early steps.

    Args:
        repeats: The runs of the network in a step after the first one.
        early_repeats: The most of them in the steps near the picture.
        average: The runs whose predictions are averaged, counted from 0: the first one, and the one
            after the last; where a step has none of them, its last prediction counts.
        early_average: The same in the steps near the picture.
        regularisation: The strength with which predictions are made uncorrelated, which eases
            edits: 20 as in the authors' code, or 0 for none.
        options: The arguments of `DdimInversion` and of every adapter.

    Raises:
        AdapterError: An argument is not valid.

    Example:
        >>> ReNoise(name="renoise", repeats=4).repeats.count
        4
    """

    def __init__(
        self,
        *,
        repeats: int = 1,
        early_repeats: int = 5,
        average: Span = (8, 10),
        early_average: Span = (0, 5),
        regularisation: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.repeats: Final = Repeats(repeats, early_repeats, average, early_average)
        self.regularisation: Final = Regularisation(regularisation)

    def walk(self, sampler: Sampler) -> Inverse:
        """Returns the sampler of the way back, whose steps are repeated.

        Args:
            sampler: The sampler of the generation.
        """
        walk = RepeatedInverse.of(sampler)
        return replace(walk, repeats=self.repeats, regularisation=self.regularisation)
