"""The noise schedule that a network was trained with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refiners_core.errors import GenerationError, ModelError
from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.limit import Limit
from refiners_core.models.samplers.published import published_schedule
from refiners_core.models.samplers.spacing import (
    Rounding,
    TrainedSigmas,
    spaced_levels,
    spaced_sigmas,
    spaced_timesteps,
)
from refiners_core.sampler_name import SigmaSpacing, Spacing, TimestepSpacing

Betas = Literal["linear", "scaled_linear"]
"""How the variance of a training step grows: linearly, or linearly in its square root."""
Prediction = Literal["eps", "v", "x0"]
"""The prediction of a network: noise, velocity (arXiv:2202.00512, appendix D) or image."""
SPACINGS: Final[tuple[Spacing, ...]] = (*get_args(TimestepSpacing), *get_args(SigmaSpacing))


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule of denoising diffusion (arXiv:2006.11239, section 2), and its arithmetic.

    At training step t clean latents x0 have become `sqrt(a_t) x0 + sqrt(1 - a_t) eps`, where `a_t`
    is the product of `1 - beta` up to t (`alpha bar` in the paper).

    Raises:
        ModelError: A value is out of range, or is not one of the known names.

    Example:
        >>> ScheduleConfig(spacing="trailing").timesteps(4)
        (999, 749, 499, 249)
    """

    train_steps: int = 1000
    """The number of training steps, from little noise to pure noise."""
    beta_start: float = 0.00085
    """The variance that the first training step adds."""
    beta_end: float = 0.012
    """The variance that the last training step adds."""
    betas: Betas = "scaled_linear"
    """How the variance grows in between."""
    prediction: Prediction = "eps"
    """The kind of prediction that the network makes."""
    spacing: Spacing | None = None
    """The levels that are visited; None leaves it to each sampler, most of which take `linspace`
    or, as DDIM does, `leading`."""
    steps_offset: int = 1
    """The offset that `leading` spacing adds to the visited training steps."""
    is_final_clean: bool = False
    """Whether the last step ends without noise instead of, as released, at training step 0."""
    has_zero_snr: bool = False
    """Whether the last training step is pure noise: zero terminal SNR (arXiv:2305.08891, 3.1)."""
    has_final_noise: bool = False
    """Whether samplers that end without noise end at training step 0 instead."""
    ends: TimestepSpacing | None = None
    """The spacing whose first and last levels are the ends of `karras`, `exponential` and `beta`,
    for samplers that solve an equation in sigma; None for all training steps."""
    limit: Limit | None = None
    """The range of the clean latents that a prediction implies; None for any."""

    def __post_init__(self) -> None:
        for name, words in (
            ("betas", get_args(Betas)),
            ("prediction", get_args(Prediction)),
            ("spacing", (*SPACINGS, None)),
            ("ends", (*get_args(TimestepSpacing), None)),
        ):
            if getattr(self, name) not in words:
                raise ModelError(
                    f"{name} is one of {', '.join(filter(None, words))}; got "
                    f"{getattr(self, name)!r}.",
                    hint=f"Try ScheduleConfig({name}={words[0]!r}).",
                )
        if self.train_steps < 1 or not 0 < self.beta_start <= self.beta_end < 1:
            raise ModelError(
                f"a schedule has at least one step and 0 < beta_start <= beta_end < 1; got "
                f"train_steps={self.train_steps}, {self.beta_start} and {self.beta_end}.",
                hint="Stable Diffusion's values are the defaults of ScheduleConfig().",
            )
        if self.has_zero_snr and (self.prediction == "eps" or self.is_spaced_in_sigma):
            raise ModelError(
                "with zero terminal SNR a network cannot predict noise, and spacings of sigma have "
                f"no highest level; got prediction={self.prediction!r}, spacing={self.spacing!r} "
                "with has_zero_snr.",
                hint='Try ScheduleConfig(prediction="v", spacing="trailing", has_zero_snr=True).',
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `scheduler_config.json`.

        Raises:
            ModelError: The class or one of its settings is not supported.
        """
        fields, read = published_schedule(data)
        schedule = cls(**fields)
        clipped = read.data.get("lambda_min_clipped")
        # Files may spell minus infinity as a text, or name a level below all others: nothing is
        # cut.
        if (
            clipped is not None
            and not float(clipped) <= schedule.level(schedule.train_steps - 1).finite.log_snr
        ):
            raise read.refusal("lambda_min_clipped", "-inf")
        return schedule

    @property
    def is_spaced_in_sigma(self) -> bool:
        """Whether the visited levels are spaced in sigma rather than in training steps."""
        return self.spacing in get_args(SigmaSpacing)

    @cached_property
    def alphas(self) -> Float[Tensor, "train_steps"]:
        """The image's share of the variance at each training step, `alpha bar`, in 0...1."""
        root = 0.5 if self.betas == "scaled_linear" else 1.0
        ends = self.beta_start**root, self.beta_end**root
        line = torch.linspace(*ends, self.train_steps, dtype=torch.float32, device="cpu")
        alphas = torch.cumprod(1 - (line**2 if root == 0.5 else line), dim=0)
        return _with_zero_snr(alphas) if self.has_zero_snr else alphas

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Returns the training steps that a sampler visits, noisiest first.

        Raises:
            GenerationError: The number of steps is less than 1 or exceeds the training steps.
        """
        return tuple(int(level.timestep) for level in self.visit(steps))

    @cached_property
    def trained(self) -> TrainedSigmas:
        """The sigmas of the training steps."""
        return TrainedSigmas(self.alphas)

    def visit(
        self,
        steps: int,
        is_rounded: bool = True,
        *,
        spacing: Spacing | None = None,
        ends: tuple[Level, Level] | None = None,
        rounding: Rounding | None = "nearest",
    ) -> tuple[Level, ...]:
        """Returns the noise levels that a sampler visits, noisiest first.

        Args:
            steps: The number of levels.
            is_rounded: Whether timesteps are rounded to training steps.
            spacing: How the levels are spaced; by default as this schedule states, or `leading`.
            ends: The highest and the lowest level of a spacing of sigma; all levels by default.
            rounding: How rounded timesteps of a spacing of sigma become training steps.

        Raises:
            GenerationError: The number of steps is less than 1 or exceeds the training steps.
        """
        spacing = spacing or self.spacing or "leading"
        total, trained = self.train_steps, self.trained
        most = total - self.steps_offset if spacing == "leading" else total
        if not 1 <= steps <= most:
            raise GenerationError(
                f"a generation takes 1 to {most} steps, not {steps}.", hint="Try steps=30."
            )
        if spacing in get_args(SigmaSpacing):
            high, low = (trained.high, trained.low) if ends is None else (it.sigma for it in ends)
            sigmas = spaced_sigmas(cast(SigmaSpacing, spacing), steps, low, high)
            return spaced_levels(trained, sigmas, rounding if is_rounded else None)
        places = spaced_timesteps(cast(TimestepSpacing, spacing), steps, total, self.steps_offset)
        if is_rounded:
            return tuple(self.level(round(t)) for t in places)
        if spacing == "sgm-uniform":
            return tuple(Level.of_sigma(trained.sigma(t), t) for t in places)
        return tuple(self.level(t) for t in places)

    def level(self, timestep: float) -> Level:
        """Returns the noise level at a timestep; between training steps, sigma is interpolated."""
        alphas, before = self.alphas, math.floor(timestep)
        if before == timestep:
            alpha = float(alphas[int(before)])
            return Level(before, math.sqrt(alpha), math.sqrt(1 - alpha))
        low, high = self.level(before).sigma, self.level(before + 1).finite.sigma
        return Level.of_sigma(low + (timestep - before) * (high - low), timestep)

    @property
    def end(self) -> Level:
        """The noise level at which the last step ends, as the model was released."""
        return CLEAN if self.is_final_clean else self.level(0)

    def add_noise(
        self,
        latents: Float[Tensor, "rows *shape"],
        noise: Float[Tensor, "rows *shape"],
        timestep: int | Int[Tensor, "rows"],
    ) -> Float[Tensor, "rows *shape"]:
        """Returns latents with the noise of a training step: one step for all rows, or one each."""
        a, s = self._levels_of(latents, timestep)
        return a * latents + s * noise

    def velocity(
        self,
        latents: Float[Tensor, "rows *shape"],
        noise: Float[Tensor, "rows *shape"],
        timestep: int | Int[Tensor, "rows"],
    ) -> Float[Tensor, "rows *shape"]:
        """Returns `sqrt(a_t) eps - sqrt(1 - a_t) x0` (arXiv:2202.00512, appendix D)."""
        a, s = self._levels_of(latents, timestep)
        return a * noise - s * latents

    def target(
        self,
        latents: Float[Tensor, "rows *shape"],
        noise: Float[Tensor, "rows *shape"],
        timestep: int | Int[Tensor, "rows"],
    ) -> Float[Tensor, "rows *shape"]:
        """Returns the training target for `add_noise(latents, noise, timestep)`."""
        if self.prediction == "v":
            return self.velocity(latents, noise, timestep)
        return noise if self.prediction == "eps" else latents

    def split(
        self, x: Float[Tensor, "*shape"], prediction: Float[Tensor, "*shape"], at: Level | int
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Returns the clean latents x0 and the noise eps that a prediction implies.

        Args:
            x: The latents that the network has read.
            prediction: Its prediction, of the kind `self.prediction`.
            at: The noise level of x, or its training step.
        """
        level = at if isinstance(at, Level) else self.level(at)
        a, s = level.signal, level.noise
        if self.prediction == "eps":
            return (x - s * prediction) / a, prediction
        if self.prediction == "v":
            return a * x - s * prediction, a * prediction + s * x
        return prediction, (x - a * prediction) / s

    def _levels_of(self, like: Tensor, timestep: int | Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas.to(device=like.device)[timestep].to(torch.float32)
        alphas = alphas.reshape(-1, *[1] * (like.ndim - 1))
        return alphas.sqrt().to(like.dtype), (1 - alphas).sqrt().to(like.dtype)


def _with_zero_snr(alphas: Tensor) -> Tensor:
    """Returns alphas whose square roots are shifted to end at 0 and scaled to begin as before.

    Algorithm 1 of arXiv:2305.08891.
    """
    root = alphas.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * (first / (first - last))) ** 2
