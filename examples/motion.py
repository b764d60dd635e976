"""
AnimateDiff
===========

New layers between the blocks: attention over frames after each spatial transformer
(arXiv:2307.04725, section 4.2). The pictures of one generation are the frames.
"""

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Layer,
    Multiply,
    Residual,
    Seat,
    When,
    select,
)
from refiners_core.layers import SelfAttention, SpatialTransformer


class OverTime(Chain):
    """Runs its children on each position of a map as a row of frames."""

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        branches = len(context["branches"])
        rows, channels, height, width = x.shape
        frames = x.view(branches, rows // branches, channels, height * width)
        tokens = frames.permute(0, 3, 1, 2).flatten(0, 1)
        tokens = super().run(context, tokens)
        frames = tokens.view(branches, height * width, rows // branches, channels)
        return frames.permute(0, 2, 3, 1).reshape(x.shape).contiguous()


class Clock(Layer):
    """Adds a different wave to each frame."""

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        when = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)[:, None]
        return x + 0.1 * torch.sin(when + torch.arange(x.shape[2], device=x.device))


class Motion(Adapter):
    """Adds attention over frames after each spatial transformer (arXiv:2307.04725, section 4.2)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        places = select(model).of(SpatialTransformer)
        return places.where(lambda seat: seat.path.startswith("unet.")).after("motion", self.module)

    def module(self, seat: Seat) -> nn.Module:
        norm: Any = seat.layer.layer("norm", nn.GroupNorm)
        width = norm.num_channels
        attend = self.layer(seat, lambda: Chain(nn.LayerNorm(width), SelfAttention(width, 2)))
        over_time = OverTime(clock=Clock(), attend=attend)
        return Residual(When(self.scale_key, over_time, Multiply(self.scale_key)))


# %%
# Frames see one another
# ----------------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    with Motion(key="motion").on(model):
        frames = model.generate("a red circle", count=3, **options)
        alone = model.generate("a red circle", count=1, **options)
    print(f"the first frame moves by {(frames[0] - alone[0]).abs().mean():.4f} in company")
