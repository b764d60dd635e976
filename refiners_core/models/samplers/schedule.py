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
from refiners_core.models.config_reader import Published
from refiners_core.models.samplers.karras import karras_levels
from refiners_core.models.samplers.level import CLEAN, Level
from refiners_core.models.samplers.table import BACKWARDS, SCHEDULER, WRITERS, heeded

Betas = Literal["linear", "scaled_linear"]
"""How the variance of a training step grows: linearly, or linearly in its square root."""
Prediction = Literal["eps", "v", "x0"]
"""The prediction of a network: noise, velocity (arXiv:2202.00512, appendix D) or image."""
Spacing = Literal["leading", "linspace", "trailing", "karras"]
"""The levels that a sampler visits: training steps (arXiv:2305.08891, table 2), or the levels of
arXiv:2206.00364, equation 5 (`karras`)."""

FILE: Final = "scheduler_config.json"
_PREDICTIONS: Final[dict[str, Prediction]] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


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
    spacing: Spacing = "leading"
    """Which training steps are visited."""
    steps_offset: int = 1
    """The offset that `leading` spacing adds to the visited training steps."""
    is_final_clean: bool = False
    """Whether the last step ends without noise instead of, as released, at training step 0."""
    has_zero_snr: bool = False
    """Whether the last training step is pure noise: zero terminal SNR (arXiv:2305.08891, 3.1)."""

    def __post_init__(self) -> None:
        for name, kind in (("betas", Betas), ("prediction", Prediction), ("spacing", Spacing)):
            if getattr(self, name) not in get_args(kind):
                raise ModelError(
                    f"{name} is one of {', '.join(get_args(kind))}; got {getattr(self, name)!r}.",
                    hint=f"Try ScheduleConfig({name}={get_args(kind)[0]!r}).",
                )
        if self.train_steps < 1 or not 0 < self.beta_start <= self.beta_end < 1:
            raise ModelError(
                f"a schedule has at least one step and 0 < beta_start <= beta_end < 1; got "
                f"train_steps={self.train_steps}, {self.beta_start} and {self.beta_end}.",
                hint="Stable Diffusion's values are the defaults of ScheduleConfig().",
            )
        if self.has_zero_snr and (self.prediction == "eps" or self.spacing == "karras"):
            raise ModelError(
                "with zero terminal SNR a network cannot predict noise, and Karras' levels have no "
                f"highest; got prediction={self.prediction!r}, spacing={self.spacing!r} with "
                "has_zero_snr.",
                hint='Try ScheduleConfig(prediction="v", spacing="trailing", has_zero_snr=True).',
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads a published `scheduler_config.json`.

        Raises:
            ModelError: The class or one of its settings is not supported.
        """
        kind = str(data.get("_class_name") or "DDIMScheduler")
        if kind in BACKWARDS or (kind not in WRITERS and data.get("beta_start") is None):
            raise ModelError(
                f"{kind} is a scheduler for another noise schedule, or from images to noise.",
                hint="Models with DDIM's noise schedule are supported: those of DDIMScheduler, "
                "EulerDiscreteScheduler, DPMSolverMultistepScheduler and so on.",
            )
        if kind in WRITERS:
            Published(data, kind, file=FILE).refuse(SCHEDULER.unknown(data))
        read = Published(heeded(data), kind, file=FILE)
        for key, allowed in SCHEDULER.fixed.items():
            read.only(key, *allowed)
        writer = WRITERS.get(kind, WRITERS["DDIMScheduler"])
        is_karras = read.value("use_karras_sigmas", False)
        prediction = read.value("prediction_type", "epsilon")
        schedule = cls(
            train_steps=read.value("num_train_timesteps", 1000),
            beta_start=read.value("beta_start", writer.beta_start),
            beta_end=read.value("beta_end", writer.beta_end),
            betas=cast(Betas, read.value("beta_schedule", writer.betas)),
            prediction=_PREDICTIONS.get(prediction, cast(Prediction, prediction)),
            spacing="karras"
            if is_karras
            else cast(Spacing, read.value("timestep_spacing", writer.spacing)),
            steps_offset=read.value("steps_offset", 0),
            is_final_clean=read.value("set_alpha_to_one", writer.is_final_clean),
            has_zero_snr=read.value("rescale_betas_zero_snr", False),
        )
        _check_levels(read, schedule)
        return schedule

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

    def visit(self, steps: int, is_rounded: bool = True) -> tuple[Level, ...]:
        """Returns the noise levels that a sampler visits, noisiest first.

        Args:
            steps: The number of levels.
            is_rounded: Whether timesteps are rounded to training steps.

        Raises:
            GenerationError: The number of steps is less than 1 or exceeds the training steps.
        """
        total = self.train_steps
        most = total - self.steps_offset if self.spacing == "leading" else total
        if not 1 <= steps <= most:
            raise GenerationError(
                f"a generation takes 1 to {most} steps, not {steps}.", hint="Try steps=30."
            )
        if self.spacing == "karras":
            return karras_levels(self.alphas, steps, is_rounded)
        if self.spacing == "leading":
            return tuple(
                self.level(i * (total // steps) + self.steps_offset) for i in reversed(range(steps))
            )
        if self.spacing == "trailing":
            return tuple(self.level(round(total - i * total / steps) - 1) for i in range(steps))
        # Multiplying first makes the last point the last training step in floating point as well.
        timesteps = [(total - 1) * i / max(steps - 1, 1) for i in reversed(range(steps))]
        return tuple(self.level(round(t) if is_rounded else t) for t in timesteps)

    def level(self, timestep: float) -> Level:
        """Returns the noise level at a timestep; between training steps, sigma is interpolated."""
        alphas, before = self.alphas, math.floor(timestep)
        if before == timestep:
            alpha = float(alphas[before])
            return Level(before, math.sqrt(alpha), math.sqrt(1 - alpha))
        low, high = self.level(before).sigma, self.level(before + 1).sigma
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


def _check_levels(read: Published, schedule: ScheduleConfig) -> None:
    """Refuses settings that would change which levels a published sampler visits.

    Raises:
        ModelError: The file has such a setting.
    """
    if schedule.spacing == "karras":
        read.only("sigma_min", None)
        read.only("sigma_max", None)
        if read.kind == "EulerDiscreteScheduler":  # interpolates Karras' levels from them
            read.only("timestep_spacing", "linspace")
    if schedule.prediction == "v":
        read.only("timestep_type", "discrete")
    clipped = read.data.get("lambda_min_clipped")
    # Files may spell minus infinity as a text, or name a level below all others: nothing is cut.
    if (
        clipped is not None
        and not float(clipped) <= schedule.level(schedule.train_steps - 1).finite.log_snr
    ):
        raise read.refusal("lambda_min_clipped", "-inf")


def _with_zero_snr(alphas: Tensor) -> Tensor:
    """Returns alphas whose square roots are shifted to end at 0 and scaled to begin as before.

    Algorithm 1 of arXiv:2305.08891.
    """
    root = alphas.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    return ((root - last) * (first / (first - last))) ** 2
