"""FreeU: stronger features of the backbone, and weaker low frequencies of skips."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.option import choice, number
from refiners_freeu.frequency import scaled_frequencies

Stages = Literal["reference", "diffusers"]
"""The rule that finds both stages: by the width of the backbone, or by the level on the way up."""
_SDXL: Final = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
_USUAL: Final = {"b1": 1.5, "b2": 1.6, "s1": 0.9, "s2": 0.2}


class FreeU(Adapter):
    """Makes the backbone of the UNet stronger where it joins skips, and low frequencies of skips
    weaker (arXiv:2309.11497, section 3.2).

    Half of the channels of the backbone grow, in version 2 where their mean is large, in version 1
    everywhere. It acts in two stages: at the widest feature maps by `b1` and `s1`, at those of the
    next width by `b2` and `s2`. The authors' code finds the width before the skip joins; diffusers
    takes the first and the second level on the way up, which differs at the first skip of each
    level, and in Stable Diffusion 1.5 for whole levels.

    Args:
        version: 2 scales by the mean of the channels (equation 4), 1 by a constant.
        b1: The factor of the backbone in the first stage; the authors' value for the model by
            default, 1.3 for SDXL and 1.5 for others.
        b2: The factor of the backbone in the second stage; 1.4 or 1.6 by default.
        s1: The factor of low frequencies of skips in the first stage; 0.9 by default.
        s2: The factor of low frequencies of skips in the second stage; 0.2 by default.
        stages: `reference` for the stages of the authors' code, or `diffusers`.
        options: The arguments of every adapter: `weights`, `name`, `key`.

    Raises:
        AdapterError: A factor is negative, or `version` or `stages` is unknown.
    """

    def __init__(
        self,
        *,
        version: Literal[1, 2] = 2,
        b1: float | None = None,
        b2: float | None = None,
        s1: float | None = None,
        s2: float | None = None,
        stages: Stages = "reference",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        factors = {"b1": b1, "b2": b2, "s1": s1, "s2": s2}
        self.factors: Final = {
            name: number(name, value, _USUAL[name], low=0)
            for name, value in factors.items()
            if value is not None
        }
        self.version: Final = choice("version", version, (2, 1))
        self.stages: Final[Stages] = choice("stages", stages, get_args(Stages))

    def edits(self, model: LatentDiffusion) -> Iterable[Edit]:
        """Changes both sides of the skips of the two stages."""
        factors = (_SDXL if model.base == "sdxl" else _USUAL) | self.factors
        backbones, skips = model.slot("unet.skip.backbone"), model.slot("unet.skip.read")
        by_width = _stages_by_width(model)
        stage: Mapping[str, int | None] = {
            seat.path: _stage_by_level(seat) if self.stages == "diffusers" else by_width[i]
            for places in (backbones, skips)
            for i, seat in enumerate(places)
        }

        def amplified(inner: nn.Module, seat: Seat) -> nn.Module:
            factor = factors[f"b{stage[seat.path]}"]
            return Chain(inner, Amplify(self.scale_key, factor, is_constant=self.version == 1))

        def damped(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, Damp(self.scale_key, factors[f"s{stage[seat.path]}"]))

        def is_chosen(seat: Seat) -> bool:
            return stage[seat.path] is not None

        wraps: list[tuple[Any, Callable[[nn.Module, Seat], nn.Module]]]
        wraps = [(backbones, amplified), (skips, damped)]
        return [
            edit
            for places, make in wraps
            for edit in places.where(is_chosen).wrap(make, stage="output", name="free")
        ]


class Amplify(Layer):
    """Makes half of the channels of the backbone stronger (arXiv:2309.11497, equation 4).

    Args:
        scale: The context key of the scale.
        factor: The factor at scale 1.
        is_constant: Whether it is the same everywhere; otherwise it grows with the mean of all
            channels, from 1 where the mean of a picture is least.
    """

    def __init__(self, scale: str, factor: float, *, is_constant: bool) -> None:
        super().__init__()
        self.scale: Final = scale
        self.factor: Final = factor
        self.is_constant: Final = is_constant

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x, scale = inputs[0], context.get(self.scale)
        if scale is None:
            return x
        gain = scale * (self.factor - 1)
        if not self.is_constant:
            mean = x.float().mean(1, keepdim=True)
            least, most = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
            gain = gain * (mean - least) / (most - least).clamp(min=1e-12)
        half = x.shape[1] // 2
        return torch.cat([(x[:, :half] * (1 + gain)).to(x.dtype), x[:, half:]], dim=1)

    def extra_repr(self) -> str:
        return f"{self.scale!r}, factor={self.factor:g}"


class Damp(Layer):
    """Scales the low frequencies of a skip (arXiv:2309.11497, equations 5 to 7).

    Args:
        scale: The context key of the scale.
        factor: The factor at scale 1.
    """

    def __init__(self, scale: str, factor: float) -> None:
        super().__init__()
        self.scale: Final = scale
        self.factor: Final = factor

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x, scale = inputs[0], context.get(self.scale)
        if scale is None:
            return x
        return scaled_frequencies(x, 1, 1 + scale.float() * (self.factor - 1)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.scale!r}, factor={self.factor:g}"


def _stages_by_width(model: LatentDiffusion) -> list[int | None]:
    """Returns the stage of each skip on the way up, by the width of the backbone before it."""
    config = model.unet.config
    widths = [config.channels[-1]]
    for channels, layers in zip(config.channels[::-1], config.layers[::-1], strict=True):
        widths += [channels] * (layers + 1)
    order = sorted({*config.channels}, reverse=True)
    places = [order.index(width) + 1 for width in widths[:-1]]
    return [place if place <= 2 else None for place in places]


def _stage_by_level(seat: Seat) -> int | None:
    for stage in (1, 2):
        if f".up.{stage - 1}." in seat.path:
            return stage
    return None
