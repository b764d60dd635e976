"""FreSca: guidance whose high frequencies are stronger than its low ones."""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat
from refiners_core.errors import ConditionError
from refiners_core.models.diffusion import (
    COND,
    UNCOND,
    GenerationRequest,
    LatentDiffusion,
    by_branch,
)
from refiners_core.option import number, whole
from refiners_freeu.frequency import scaled_frequencies


class FreSca(Adapter):
    """Scales low and high frequencies of the difference that guidance amplifies.

    The difference of the predictions with and without the prompt becomes `low` times its low
    frequencies plus `high` times the others (arXiv:2504.02154, section 3.2): details get more
    guidance, the layout does not.

    Args:
        low: The factor of low frequencies.
        high: The factor of high frequencies.
        cutoff: The first frequency that counts as high, in periods across the latents. The authors'
            20 is for latents of 64 x 64 and larger.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A factor is negative, or `cutoff` is not a whole number from 1 on.
    """

    def __init__(
        self, *, low: float = 1.0, high: float = 1.25, cutoff: int = 20, **options: Any
    ) -> None:
        super().__init__(**options)
        self.low: Final = number("low", low, 1.0, low=0)
        self.high: Final = number("high", high, 1.25, low=0)
        self.cutoff: Final = whole("cutoff", cutoff, 20)

    def check(self, value: Any, request: GenerationRequest) -> None:
        """Refuses a generation without guidance, and latents without high frequencies.

        Raises:
            ConditionError: The scale of guidance is at most 1, or the latents are too small.
        """
        if UNCOND not in request.branches:
            raise ConditionError(
                f"{self.key} changes guidance, which this generation does not have: its scale is "
                "at most 1.",
                hint="Pass guidance=7.5, or conditions={adapter: None} to skip the adapter.",
            )
        width, height = request.latent_width, request.latent_height
        if 2 * self.cutoff >= max(width, height):
            raise ConditionError(
                f"latents of {width} x {height} have no frequency above the cutoff {self.cutoff} "
                f"of {self.key}.",
                hint=f"Load it with cutoff={max(1, min(width, height) * 20 // 64)}.",
            )

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Scales the difference of the predictions that guidance reads."""

        def scaled(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(ScaleDifference(self), inner)

        return model.slot("denoise.guidance").wrap(scaled, stage="inputs")


class ScaleDifference(Layer):
    """Scales frequencies of the difference between predictions (arXiv:2504.02154).

    Args:
        adapter: The adapter with the factors.
    """

    def __init__(self, adapter: FreSca) -> None:
        super().__init__()
        self.scale, self.cutoff = adapter.scale_key, adapter.cutoff
        self.low, self.high = adapter.low, adapter.high

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        (prediction,) = inputs
        scale = context.get(self.scale)
        passes = by_branch(context["branches"], prediction)
        if scale is None or UNCOND not in passes:
            return prediction
        cond, uncond = passes[COND], passes[UNCOND]
        weight = (scale if scale.ndim == 0 else scale[: len(cond)]).float()
        low, high = (1 + weight * (factor - 1) for factor in (self.low, self.high))
        difference = scaled_frequencies(cond - uncond, self.cutoff, low, high)
        passes[COND] = (uncond + difference).to(cond.dtype)
        return torch.cat([*passes.values()])

    def extra_repr(self) -> str:
        return f"{self.scale!r}, low={self.low:g}, high={self.high:g}, cutoff={self.cutoff}"
