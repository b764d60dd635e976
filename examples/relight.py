"""
IC-Light
========

The first convolution reads a picture of light too, and all weights move: those of linear layers,
convolutions and normalisations. A convolution of more channels is the sum of one of the old and one
of the new, so it runs beside the base's, and both can be worn with others.
"""

from typing import Any, ClassVar

import torch
from inpainting_head import at_latents
from lora import LoraChange
from torch import Tensor, nn
from torch.nn import functional as F

from refiners_core import (
    Adapter,
    Concatenate,
    Edit,
    Identity,
    Multiply,
    Seat,
    Sum,
    UseContext,
    When,
)


class NormOffset(nn.Module):
    """Normalises like a layer, with offsets of its weight and bias in place of these."""

    def __init__(self, base: nn.GroupNorm | nn.LayerNorm) -> None:
        super().__init__()
        self.groups = base.num_groups if isinstance(base, nn.GroupNorm) else None
        self.eps = base.eps
        self.weight, self.bias = (nn.Parameter(torch.randn_like(base.weight) / 8) for _ in "wb")

    def forward(self, x: Tensor) -> Tensor:
        if self.groups is None:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class Relight(Adapter):
    """Adds a picture of light to the first convolution, and an offset to every other layer."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def changed(inner: nn.Module, seat: Seat) -> nn.Module:
            kind = LoraChange if seat.is_a(nn.Linear, nn.Conv2d) else NormOffset
            change = self.layer(seat, lambda: kind(seat.layer))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        first = model.slot("unet.conv_in")
        places = (model.slot(slot) for slot in ("unet.linear", "unet.conv", "unet.norm"))
        others = (place.where(lambda seat: seat.path != first[0].path) for place in places)
        edits = (place.wrap(changed, name="offset") for place in others)
        return sum(edits, first.wrap(self.more, name="light"))

    def more(self, inner: nn.Module, seat: Seat) -> nn.Module:
        channels: Any = seat.facts["in_channels"], seat.facts["out_channels"]
        conv = self.layer(seat, lambda: nn.Conv2d(channels[0] + 4, channels[1], 3, padding=1))
        both = Concatenate(latents=Identity(), light=UseContext(self.context_key("light")))
        return Sum(inner, When(self.scale_key, both, conv, Multiply(self.scale_key)))

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        small = at_latents(value, request)
        return {self.context_key("light"): {"cond": torch.cat([small, small.mean(1, True)], dim=1)}}


# %%
# Beside an inpainting head
# -------------------------

if __name__ == "__main__":
    from inpainting_head import InpaintingHead

    from refiners_core.testing import tiny_model

    model = tiny_model()
    head, light = InpaintingHead(key="head").inject(model), Relight(key="light").inject(model)
    print(model.unet.at("conv_in"))
    picture = torch.rand(1, 3, 32, 32)
    conditions = {head: picture, light: picture}
    model.generate("a red circle", conditions=conditions, steps=2, seed=7, progress=False)
