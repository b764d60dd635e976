"""
BrushNet
========

A second UNet reads the picture around a hole and the latents, but no text. What its levels compute
is added to those of the first: on the way down, in the middle and on the way up (arXiv:2403.06976,
section 3.2).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from inpainting_head import at_latents
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Distribute,
    Edit,
    Identity,
    Multiply,
    Parallel,
    Passthrough,
    Scope,
    Seat,
    SetContext,
    Sum,
    UseContext,
    When,
)
from refiners_core.models.unet import DownPath, MidBlock, SkipWrite, TimeEmbedding, UpPath

SLOTS = ("unet.conv_in", "unet.down", "unet.mid", "unet.up")


class BrushNet(Adapter):
    """Adds the levels of a UNet that reads a masked picture (arXiv:2403.06976, figure 2)."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        config = model.unet.config
        config = replace(config, depths=(0,) * len(config.depths), mid_depth=0)
        count, channels = len(config.channels), config.channels
        # One for each place of SLOTS, in that order.
        widths = [channels[0], *channels, channels[-1], *reversed(channels)]
        self.keys = [self.context_key(f"level.{i}") for i in range(len(widths))]
        taps = [
            Passthrough(conv=nn.Conv2d(width, width, 1), keep=SetContext(key))
            for width, key in zip(widths, self.keys, strict=True)
        ]
        self.network = Scope(
            time=TimeEmbedding(config),
            read=Concatenate(latents=Identity(), around=UseContext(self.context_key("around"))),
            conv_in=nn.Conv2d(config.in_channels + 5, channels[0], 3, padding=1),
            tap_in=taps[0],
            write=SkipWrite(0),
            down=tapped(DownPath(config), taps[1 : 1 + count]),
            mid=MidBlock(config),
            tap_mid=taps[1 + count],
            up=tapped(UpPath(config), taps[2 + count :]),
            outputs=Parallel(*map(UseContext, self.keys)),
        ).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        seats = [seat for slot in SLOTS for seat in model.slot(slot)]
        keys = dict(zip([seat.path for seat in seats], self.keys, strict=True))

        def before(seat: Seat) -> nn.Module:
            write = Distribute(*map(SetContext, self.keys))
            run = When(self.context_key("around"), network=self.network, write=write)
            return Passthrough(run)

        def added(inner: nn.Module, seat: Seat) -> nn.Module:
            key = keys[seat.path]
            return Sum(inner, When(key, UseContext(key), Multiply(self.scale_key)))

        sums = (model.slot(slot).wrap(added, name="brush") for slot in SLOTS)
        return sum(sums, model.slot("unet.input").before("brush", before))

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        around = at_latents(value, request)
        mask = around.mean(1, keepdim=True)
        joined = torch.cat([around, mask, 1 - mask], dim=1)
        return {self.context_key("around"): {"cond": joined}}


def tapped(path: Chain, taps: Iterable[nn.Module]) -> Chain:
    """Returns the levels of a path, each followed by a layer that records its output."""
    return Chain(*[Chain(level=level, tap=tap) for level, tap in zip(path, taps, strict=True)])


# %%
# On the way up alone
# -------------------
# The outputs are scaled where they are added, so each place can have a scale of its own.

if __name__ == "__main__":
    from refiners_core import Condition
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    brush = BrushNet(key="brush").inject(model)
    picture = torch.rand(1, 3, 32, 32)
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    without = model.generate("a red circle", conditions={brush: None}, **options)
    for scale in (1.0, {"unet.up": 1.0}, {"unet.up.0": 0.5, "unet.mid": 0.2}):
        conditions = {brush: Condition(picture, scale=scale)}
        filled = model.generate("a red circle", conditions=conditions, **options)
        print(f"scale {scale}: {(filled - without).abs().mean():.4f} away from the base")
