"""
IC-Light
========

The first convolution reads a picture of light too, and every linear layer's weights move. A
convolution of more channels is the sum of one of the old and one of the new, so it stands beside
the base's, and both can be worn with others.
"""

from typing import Any, ClassVar

import torch
from inpainting_head import at_latents
from lora import LoraChange
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Multiply, Seat, Sum, UseContext, When


class Relight(Adapter):
    """Adds a picture of light to the first convolution, and low-rank changes to linear layers."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def changed(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, lambda: LoraChange(seat.layer))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        linears = model.slot("unet.linear")
        return (
            *model.slot("unet.conv_in").wrap(self.more, name="light"),
            *linears.wrap(changed, name="light"),
        )

    def more(self, inner: nn.Module, seat: Seat) -> nn.Module:
        conv = self.layer(seat, lambda: nn.Conv2d(4, seat.layer.out_channels, 3, padding=1))
        light = Chain(UseContext(self.context_key("light")), conv, Multiply(self.scale_key))
        return Sum(inner, When(self.scale_key, light))

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
