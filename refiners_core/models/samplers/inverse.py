"""A sampler that walks backwards, from clean latents to noise."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from torch import Tensor

from refiners_core.errors import GenerationError
from refiners_core.models.samplers.ddim import DDIM
from refiners_core.models.samplers.level import Level
from refiners_core.models.samplers.sampler import Sampler, Step


@dataclass(frozen=True)
class Inverse(Sampler):
    """Walks the levels of another sampler backwards by DDIM's equation (arXiv:2010.02502, section
    4.3).

    Each step adds the noise that the network predicts, so that the way forward with few changes
    leads back to the same latents. As in released code, the network reads the timestep of the level
    to which a step leads, the one at which the way forward reads it. `LatentDiffusion.invert` walks
    so from an image.

    Raises:
        GenerationError: The network predicts images, which say nothing of the noise in a clean one.

    Example:
        >>> Inverse.of(DDIM().with_steps(5)).timesteps
        (1, 201, 401, 601, 801)
    """

    forward: Sampler = field(default_factory=DDIM, kw_only=True)
    """The sampler whose levels are walked, with its number of steps."""

    def __post_init__(self) -> None:
        if self.schedule.prediction == "x0" and self.path[0].noise == 0:
            raise GenerationError(
                "a network that predicts images cannot be walked backwards from a clean one.",
                hint='Invert with a model that predicts "eps" or "v".',
            )

    @classmethod
    def of(cls, forward: Sampler) -> Self:
        """Returns the sampler that walks the levels of another one backwards, each of them once."""
        levels = sorted(dict.fromkeys(forward.path), key=lambda level: level.noise)
        return cls(
            schedule=replace(forward.schedule, limit=None),
            steps=forward.steps,
            explicit=tuple(levels),
            forward=forward,
        )

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        return self.explicit or Inverse.of(self.forward).explicit

    @cached_property
    def timesteps(self) -> tuple[float, ...]:
        return tuple(level.timestep for level in self.path[1:])

    def with_steps(self, steps: int) -> Self:
        """Returns this sampler for another number of steps; for the same one, itself.

        Raises:
            GenerationError: The schedule does not allow that many steps.
        """
        same = steps == self.forward.steps
        return self if same else self.of(self.forward.with_steps(steps))

    def with_strength(self, strength: float) -> Self:
        """Returns this sampler up to the level at which the way forward of that strength begins.

        Raises:
            GenerationError: The share is less than one step.
        """
        return self.of(self.forward.with_strength(strength))

    def _advance(self, step: Step) -> Tensor:
        return self.path[step.index + 1].add_noise(step.x0, step.eps)
