"""
Inpainting head
===============

A first convolution that also reads a mask and what is around it. It replaces the base's, so only
one adapter of this kind can be worn.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Concatenate, Edit, Identity, Seat, UseContext


def at_latents(value: Tensor, request: Any) -> Tensor:
    """Returns a picture in the size of the latents."""
    side = (request.latent_height, request.latent_width)
    return nn.functional.adaptive_avg_pool2d(value.to(request.dtype), side)


class InpaintingHead(Adapter):
    """Replaces the first convolution by one that reads nine channels."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        return model.slot("unet.conv_in").replace(self.wider)

    def wider(self, seat: Seat) -> nn.Module:
        out = seat.layer.out_channels
        conv = self.layer(seat, lambda: nn.Conv2d(9, out, 3, padding=1))
        return Chain(Concatenate(Identity(), UseContext(self.context_key("around"))), conv)

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        around = at_latents(value, request)
        mask = around.mean(1, keepdim=True)
        joined = torch.cat([mask, around, mask], dim=1)
        return {self.context_key("around"): {"cond": joined}}


# %%
# A second one is refused while planning
# --------------------------------------

if __name__ == "__main__":
    from refiners_core.errors import PlanError
    from refiners_core.testing import tiny_model

    model = tiny_model()
    InpaintingHead(key="head").inject(model)
    try:
        InpaintingHead(key="other").inject(model)
    except PlanError as error:
        print(error)
