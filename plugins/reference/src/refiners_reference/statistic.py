"""Reference AdaIN: feature maps take the statistics of a reference."""

from collections.abc import Iterable
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Context, Edit, Seat
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import number
from refiners_reference.adapter import Reference
from refiners_reference.observation import Trace

LEAST: Final = 1e-6
"""The least variance to divide by, as in the community pipelines."""


class ReferenceAdain(Reference):
    """Gives feature maps the mean and the deviation, by channel, of those of a reference picture
    (AdaIN, arXiv:1703.06868, equation 8).

    It acts on the output of each layer of the levels on the way down and up, and of the middle.

    Args:
        norm_weight: Which levels take the statistics, in 0...2: from 0, the middle and the lowest
            level on the way up; then from the lowest levels outwards; at 2 all of them.
        options: The arguments of `Reference` and of every adapter.

    Raises:
        AdapterError: `style_fidelity` is not a number in 0...1, or `norm_weight` not in 0...2.

    Example:
        >>> ReferenceAdain(name="reference-adain").norm_weight
        1.0
    """

    def __init__(self, *, norm_weight: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.norm_weight: Final = number("norm_weight", norm_weight, 1.0, low=0, high=2)

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Adds the pass over the reference, and the exchange of statistics after each layer."""
        levels = self._levels(model)
        transformers = model.slot("unet.transformer")
        with_transformer = {seat.path.rpartition(".")[0] for seat in transformers}
        # A layer of a level is a residual block, and a transformer after it if the level has some.
        plain = [
            seat for seat in model.slot("unet.residual") if _level(seat) not in with_transformer
        ]
        paths = [
            *(seat.path for seat in (*plain, *transformers) if _level(seat) in levels),
            *(seat.path for seat in model.slot("unet.mid.output")),
        ]
        places = {path: place for place, path in enumerate(paths)}

        def adapted(inner: nn.Module, seat: Seat) -> nn.Module:
            return TakeStatistics(self.trace(places[seat.path]), inner)

        edits = list(self.observation(model))
        for name in ("unet.residual", "unet.transformer", "unet.mid.output"):
            chosen = model.slot(name).where(lambda seat: seat.path in places)
            edits += chosen.wrap(adapted, name="reference", stage="output") if len(chosen) else ()
        return edits

    def _levels(self, model: LatentDiffusion) -> set[str]:
        """Returns the paths of the levels on the way down and up that take the statistics."""
        down, up = list(model.slot("unet.down")), list(model.slot("unet.up"))
        weights = {seat.path: 2 * (1 - i / len(down)) for i, seat in enumerate(down)}
        weights |= {seat.path: 2 * i / len(up) for i, seat in enumerate(up)}
        return {path for path, weight in weights.items() if weight <= self.norm_weight}


class TakeStatistics(Chain):
    """Records the statistics of the reference, and gives them to the pictures.

    Args:
        trace: The record of this place.
        inner: The layer whose output it changes.
    """

    inner: nn.Module

    def __init__(self, trace: Trace, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.trace: Final = trace
        self.scale_key: Final = trace.scale_key

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows channels height width"]:
        x: Tensor = self.call(self.inner, context, *inputs)
        if self.trace.is_written(context):
            self.trace.write(context, *_statistics(x))
            return x
        seen = None if context.get(self.scale_key) is None else self.trace.read(context, 2)
        if seen is None:
            return x
        var, mean = _statistics(x)
        changed = (x - mean) / var.clamp(min=LEAST).sqrt() * seen[0].clamp(min=LEAST).sqrt() + seen[
            1
        ]
        return self.trace.mixed(x, changed, context)

    def extra_repr(self) -> str:
        return f"{self.scale_key!r}, place={self.trace.place}"


def _statistics(
    x: Float[Tensor, "rows channels height width"],
) -> tuple[Float[Tensor, "rows channels 1 1"], Float[Tensor, "rows channels 1 1"]]:
    """Returns the variance and the mean of each channel."""
    var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
    return var, mean


def _level(seat: Seat) -> str:
    return seat.path.rpartition(".")[0]
