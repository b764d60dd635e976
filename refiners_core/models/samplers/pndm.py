"""Pseudo numerical methods for diffusion models (PNDM and PLMS)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, Literal, NamedTuple

from torch import Tensor

from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Step
from refiners_core.models.samplers.stride import StrideSampler

_ADAMS: Final = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""The weights of Adams and Bashforth, latest first (arXiv:2202.09778, equation 9)."""
_RUNGE_KUTTA: Final = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
"""The weights of the four predictions of a Runge-Kutta step."""
_FIRST_STEPS: Final = 3
"""The number of Runge-Kutta steps."""


class Move(NamedTuple):
    """One run of the network, and the way that latents go with it."""

    number: int
    """The step, counted from 0."""
    at: Level
    """The level that the network reads."""
    start: Level
    """The level from which latents are moved."""
    end: Level
    """The level to which they are moved."""
    kind: Literal["adams", "mean", "rk0", "rk1", "rk2", "rk3"]
    """How the prediction is combined with earlier ones."""


@dataclass(frozen=True)
class PLMS(StrideSampler):
    """The linear multistep method of PNDM (arXiv:2202.09778, section 3.3, as in latent diffusion).

    The first step runs the network twice; each later one reads up to three earlier predictions.
    As released, an initial image enters the sequence of runs in its middle, and predictions of
    velocity are combined before they become noise.
    """

    memory: ClassVar[int] = 3

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """The runs of the network, in order."""
        # The positions of the levels that the runs read: 0 1 1 2 3 ...
        places = [*range(min(2, self.steps)), *range(1, self.steps)][self.skipped :]
        moves: list[Move] = []
        for i, place in enumerate(places):
            at = self.levels[place]
            if i == 1:
                moves.append(Move(0, at, self._before(place), at, "mean"))
            else:
                moves.append(Move(max(i - 1, 0), at, at, self._after(place), "adams"))
        return tuple(moves)

    @cached_property
    def path(self) -> tuple[Level, ...]:
        return (*(move.at for move in self.moves), self.levels[-1])

    @cached_property
    def step_numbers(self) -> tuple[int, ...]:
        return tuple(move.number for move in self.moves)

    def _before(self, position: int) -> Level:
        """Returns the level from which the step to `levels[position]` leads."""
        if self.stride is None:
            return self.levels[position - 1]
        return self.schedule.level(self.levels[position].timestep + self.stride)

    def _advance(self, step: Step) -> Tensor:
        move = self.moves[step.index]
        x, output = self._combined(step, move)
        x0, eps = self.schedule.split(x, output, move.start)
        return move.end.signal * x0 + move.end.noise * eps

    def _combined(self, step: Step, move: Move) -> tuple[Tensor, Tensor]:
        """Returns the latents that are moved, and the prediction that moves them."""
        output = self._output(step)
        x, *known = step.past or (step.x,)
        if move.kind == "mean":
            return x, (output + known[0]) / 2
        return step.x, _weighted(_ADAMS[min(len(known), 3)], [output, *known])

    def _output(self, step: Step) -> Tensor:
        """Returns the prediction of the network."""
        at = self.path[step.index]
        if self.schedule.prediction == "eps":
            return step.eps
        if self.schedule.prediction == "v":
            return at.signal * step.eps - at.noise * step.x0
        return step.x0

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        if self.moves[step.index].kind == "mean":
            return tuple(step.past)
        return (step.x, self._output(step), *step.past[1:])[: self.memory + 1]


@dataclass(frozen=True)
class PNDM(PLMS):
    """PNDM: its first three steps are Runge-Kutta steps of four runs (arXiv:2202.09778, alg. 2)."""

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        first, last = self.skipped, self.steps - 1
        count = min(_FIRST_STEPS, last - first)
        moves: list[Move] = []
        for number, place in enumerate(range(first, first + count)):
            start, end = self.levels[place], self.levels[place + 1]
            middle, ends = self._middle(place)
            moves.append(Move(number, start, start, ends[0], "rk0"))
            moves.append(Move(number, middle, start, middle, "rk1"))
            moves.append(Move(number, middle, start, ends[1], "rk2"))
            moves.append(Move(number, end, start, end, "rk3"))
        for place in range(first + count, self.steps):
            at = self.levels[place]
            moves.append(Move(place - first, at, at, self._after(place), "adams"))
        return tuple(moves)

    def _middle(self, place: int) -> tuple[Level, tuple[Level, Level]]:
        """Returns the level in the middle of a step, and where the moves to and from it end."""
        start, end = self.levels[place], self.levels[place + 1]
        if self.stride is None:
            middle = self.schedule.level((start.timestep + end.timestep) / 2)
            return middle, (middle, end)
        half, level = self.stride // 2, self.schedule.level
        middle = level(end.timestep + half)
        return middle, (level(start.timestep - half), level(middle.timestep - half))

    def _combined(self, step: Step, move: Move) -> tuple[Tensor, Tensor]:
        if not move.kind.startswith("rk"):
            return super()._combined(step, move)
        output = self._output(step)
        if move.kind == "rk0":
            return step.x, output
        x = step.past[0]
        return x, self._sum(step, move) if move.kind == "rk3" else output

    def _sum(self, step: Step, move: Move) -> Tensor:
        """Returns the weighted sum of the predictions of a Runge-Kutta step so far."""
        weighted = _RUNGE_KUTTA[int(move.kind[-1])] * self._output(step)
        return weighted if move.kind == "rk0" else step.past[1] + weighted

    def _kept(self, step: Step) -> tuple[Tensor, ...]:
        move = self.moves[step.index]
        if move.kind == "adams":
            return super()._kept(step)
        if move.kind == "rk0":
            return (step.x, self._sum(step, move), self._output(step), *step.past[1:])[:5]
        if move.kind == "rk3":
            return (step.past[0], *step.past[2:])
        return (step.past[0], self._sum(step, move), *step.past[2:])


def _weighted(weights: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    total = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=False):
        total = total + weight * tensor
    return total
