"""Which noise levels a sampler visits."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.samplers.beta import beta_quantile
from refiners_core.models.samplers.level import Level
from refiners_core.sampler_name import SigmaSpacing, TimestepSpacing

Rounding = Literal["nearest", "down"]
"""How a timestep between two training steps becomes one of them."""

_RHO: Final = 7.0
"""The exponent of Karras' levels (`rho`; arXiv:2206.00364, table 1)."""
_SHAPE: Final = 0.6
"""Both parameters of the beta distribution (arXiv:2407.12173)."""


class TrainedSigmas:
    """The sigmas of the training steps, and the points between them.

    As released, they and their logarithms are float32, and points are interpolated in float64.

    Args:
        alphas: `alpha bar` at each training step.
    """

    def __init__(self, alphas: Float[Tensor, "train_steps"]) -> None:
        # Without its last bit, pure noise would have an infinite sigma.
        finite = alphas.clamp(min=2.0**-24)
        self._sigmas: Final = (((1 - finite) / finite) ** 0.5).numpy()
        self._logs: Final = np.log(self._sigmas)

    @property
    def low(self) -> float:
        """The sigma of the first training step."""
        return float(self._sigmas[0])

    @property
    def high(self) -> float:
        """The sigma of the last training step; finite for pure noise."""
        return float(self._sigmas[-1])

    def timestep(self, sigma: float) -> float:
        """Returns the timestep of a sigma: between training steps, its logarithm is interpolated.

        A sigma beyond the trained ones has the timestep of the nearest one.
        """
        logs, wanted = self._logs, np.log(np.float64(max(sigma, 1e-10)))
        before = int(np.clip(np.searchsorted(logs, wanted, side="right") - 1, 0, len(logs) - 2))
        share = (logs[before] - wanted) / (logs[before] - logs[before + 1])
        return float(before + np.clip(share, 0, 1))

    def sigma(self, timestep: float) -> float:
        """Returns the sigma of a timestep; its logarithm is interpolated between training steps."""
        return float(np.exp(np.interp(timestep, np.arange(len(self._logs)), self._logs)))


def spaced_timesteps(
    spacing: TimestepSpacing, steps: int, train_steps: int, offset: int
) -> tuple[float, ...]:
    """Returns timesteps from the noisiest on; some lie between two training steps.

    Args:
        spacing: How they are spaced.
        steps: Their number.
        train_steps: The number of training steps.
        offset: The offset that `leading` adds.
    """
    last = train_steps - 1
    if spacing == "leading":
        return tuple(i * (train_steps // steps) + offset for i in reversed(range(steps)))
    # Of a half between two training steps numpy's functions decide as released code does.
    if spacing == "trailing":
        places = np.arange(train_steps, 0, -train_steps / steps)[:steps].round() - 1
    elif spacing == "sgm-uniform":
        places = np.linspace(last, 0, steps + 1)[:-1]
    else:
        places = np.linspace(0, last, steps)[::-1]
    return tuple(places.tolist())


def spaced_sigmas(spacing: SigmaSpacing, steps: int, low: float, high: float) -> Sequence[float]:
    """Returns sigmas from the highest to the lowest, both included.

    Args:
        spacing: How they are spaced.
        steps: Their number; one is the highest.
        low: The lowest sigma.
        high: The highest sigma.
    """
    line = np.linspace(0, 1, steps)
    if spacing == "karras":
        ends = low ** (1 / _RHO), high ** (1 / _RHO)
        sigmas = (ends[1] + line * (ends[0] - ends[1])) ** _RHO
    elif spacing == "exponential":
        sigmas = np.exp(np.linspace(np.log(high), np.log(low), steps))
    else:
        shares = np.array([beta_quantile(share, _SHAPE, _SHAPE) for share in 1 - line])
        sigmas = low + shares * (high - low)
    return sigmas.tolist()


def spaced_levels(
    trained: TrainedSigmas, sigmas: Sequence[float], rounding: Rounding | None
) -> tuple[Level, ...]:
    """Returns the levels of sigmas, each with the timestep that the network reads.

    Args:
        trained: The sigmas of the training steps.
        sigmas: The sigmas of the levels.
        rounding: How timesteps become training steps; None leaves them in between.
    """
    timesteps = [trained.timestep(sigma) for sigma in sigmas]
    if rounding is not None:
        timesteps = [int(t) if rounding == "down" else round(t) for t in timesteps]
    return tuple(Level.of_sigma(s, t) for s, t in zip(sigmas, timesteps, strict=True))
