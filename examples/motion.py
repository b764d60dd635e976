"""
AnimateDiff
===========

New layers between the blocks: attention over frames after each residual block and the transformer
that follows it, on the ways down and up (arXiv:2307.04725, section 4.2). The pictures of one
generation are the frames.
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
)
from refiners_core.layers import SelfAttention


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
    """Adds attention over frames where a level has finished a layer (arXiv:2307.04725)."""

    def build(self, model: Any, source: Any) -> None:
        channels = model.unet.config.channels
        levels = [seat.path for slot in ("unet.down", "unet.up") for seat in model.slot(slot)]
        self.widths = dict(zip(levels, [*channels, *channels[::-1]], strict=True))

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def is_in_level(seat: Seat) -> bool:
            return level_of(seat) in self.widths

        transformers = model.slot("unet.transformer").where(is_in_level)
        last = {(level_of(seat), seat.name.rpartition("_")[2]) for seat in transformers}

        def is_last(seat: Seat) -> bool:
            is_followed = (level_of(seat), seat.name.rpartition("_")[2]) in last
            return is_in_level(seat) and not is_followed

        residuals = model.slot("unet.residual").where(is_last)
        return (
            *residuals.after("motion", self.module),
            *transformers.after("motion", self.module),
        )

    def module(self, seat: Seat) -> nn.Module:
        width = self.widths[level_of(seat)]
        attend = self.layer(seat, lambda: Chain(nn.LayerNorm(width), SelfAttention(width, 2)))
        over_time = OverTime(clock=Clock(), attend=attend)
        return Residual(When(self.scale_key, over_time, Multiply(self.scale_key)))


def level_of(seat: Seat) -> str:
    """Returns the path of the level that a layer belongs to."""
    return seat.path.rpartition(".")[0]


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
