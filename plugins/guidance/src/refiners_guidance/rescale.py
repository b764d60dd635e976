"""Rescaled guidance: the contrast of the result is that of the guided prediction."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from torch import Tensor, nn

from refiners_core import Adapter, Context, Edit, Seat
from refiners_core.models.diffusion import COND, LatentDiffusion
from refiners_core.option import number
from refiners_guidance.rule import ChangeGuided


class Rescale(Adapter):
    """Moves the standard deviation of the result towards that of the prediction with the prompt.

    Guidance raises the contrast of pictures; this takes it back (arXiv:2305.08891, equations 15 and
    16), for each picture. `generate(guidance_rescale=...)` does the same at all steps, before
    other adapters add to the result.

    Args:
        strength: How far, in 0...1 (`phi`).
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: `strength` is not a number in 0...1.
    """

    def __init__(self, *, strength: float = 0.7, **options: Any) -> None:
        super().__init__(**options)
        self.strength: Final = number("strength", strength, 0.7, high=1.0, low=0)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Rescales the result of guidance."""

        def rescaled(inner: nn.Module, seat: Seat) -> nn.Module:
            return RescaleGuided(self.scale_key, self.strength, inner)

        return model.slot("denoise.guidance").wrap(rescaled, stage="output")


class RescaleGuided(ChangeGuided):
    """Moves the standard deviation of the result towards that of `cond` (arXiv:2305.08891).

    Args:
        scale: The context key of the scale.
        strength: How far, in 0...1.
        inner: Guidance.
    """

    def __init__(self, scale: str, strength: float, inner: nn.Module) -> None:
        super().__init__(scale, inner)
        self.strength: Final = strength

    def changed(self, context: Context, passes: Mapping[str, Tensor], guided: Tensor) -> Tensor:
        dims = tuple(range(1, guided.ndim))
        contrast = passes[COND].std(dims, keepdim=True) / guided.std(dims, keepdim=True)
        return guided * (self.strength * contrast + (1 - self.strength))
