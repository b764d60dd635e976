"""Dynamic thresholding: strong guidance in the range of weaker guidance."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from refiners_core import Context, Edit, Seat
from refiners_core.models.diffusion import COND, UNCOND, LatentDiffusion
from refiners_core.option import flag, number
from refiners_guidance.clean import from_clean, to_clean
from refiners_guidance.rule import ChangeGuided, Rule

_TINY: Final = 1e-12


class DynamicThreshold(Rule):
    """Keeps the result of strong guidance within the range that weaker guidance would have.

    Imagen cuts the pixels of each picture at a percentile of their magnitudes and divides by it
    (arXiv:2205.11487, section 2.3). Latents do not have a fixed range, so that here, as in
    sd-dynamic-thresholding, the range is that of guidance with the scale `mimic`: around the mean
    of each channel, clean latents are cut at the larger of both ranges and scaled to that of
    `mimic`. It acts where the scale of guidance exceeds `mimic`.

    Args:
        mimic: The scale of guidance whose range is kept.
        percentile: The percentile of magnitudes that counts as the range, in 0...1; 1 is the
            largest.
        per_channel: Whether each channel has a range, or all together.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A number is out of range.
    """

    def __init__(
        self,
        *,
        mimic: float = 7.0,
        percentile: float = 1.0,
        per_channel: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.mimic: Final = number("mimic", mimic, 7.0, low=0)
        self.percentile: Final = number("percentile", percentile, 1.0, high=1.0, low=0)
        self.per_channel: Final = flag("per_channel", per_channel, True)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Cuts the result of guidance."""

        def cut(inner: nn.Module, seat: Seat) -> nn.Module:
            return CutGuided(self, inner)

        return model.slot("denoise.guidance").wrap(cut, stage="output")


class CutGuided(ChangeGuided):
    """Cuts and scales the result to the range of weaker guidance.

    Args:
        adapter: The adapter with the numbers.
        inner: Guidance.
    """

    def __init__(self, adapter: DynamicThreshold, inner: nn.Module) -> None:
        super().__init__(adapter.scale_key, inner)
        self.mimic, self.percentile = adapter.mimic, adapter.percentile
        self.per_channel = adapter.per_channel

    def changed(self, context: Context, passes: Mapping[str, Tensor], guided: Tensor) -> Tensor:
        cond, uncond = passes[COND], passes.get(UNCOND)
        if uncond is None:
            return guided
        first = 2 if self.per_channel else 1
        strong = to_clean(context, guided).flatten(first)
        weak = to_clean(context, uncond + self.mimic * (cond - uncond)).flatten(first)
        mean = strong.mean(-1, keepdim=True)
        centred = strong - mean
        weak_range = (weak - weak.mean(-1, keepdim=True)).abs().amax(-1, keepdim=True)
        strong_range = torch.quantile(centred.abs(), self.percentile, dim=-1, keepdim=True)
        most = torch.maximum(weak_range, strong_range).clamp(min=_TINY)
        cut = centred.clamp(-most, most) / most * weak_range + mean
        return from_clean(context, cut.view_as(guided))
