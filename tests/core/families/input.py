"""Inpainting heads, IC-Light, AnimateDiff: another input, new layers, another axis."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Context,
    Edit,
    Identity,
    Layer,
    Multiply,
    Residual,
    Seat,
    Sum,
    UseContext,
    When,
    select,
)
from refiners_core.layers.attention import SelfAttention
from refiners_core.layers.transformer import SpatialTransformer

from .low_rank import LoraChange


def at_latents(value: Tensor, request: Any) -> Tensor:
    side = (request.latent_height, request.latent_width)
    return nn.functional.adaptive_avg_pool2d(value.to(request.dtype), side)


class InpaintingHead(Adapter):
    """A first convolution that also reads a mask and what is around it: it replaces the base's."""

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


class Relight(Adapter):
    """IC-Light: the first convolution reads a picture too, and every layer's weights move.

    A convolution of more channels is the sum of one of the old and one of the new, so this one
    stands beside the base's and both can be worn with others.
    """

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def moved(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, lambda: LoraChange(seat.layer))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        linears = model.slot("unet.linear")
        return (
            *model.slot("unet.conv_in").wrap(self.more, name="light"),
            *linears.wrap(moved, name="light"),
        )

    def more(self, inner: nn.Module, seat: Seat) -> nn.Module:
        conv = self.layer(seat, lambda: nn.Conv2d(4, seat.layer.out_channels, 3, padding=1))
        light = Chain(UseContext(self.context_key("light")), conv, Multiply(self.scale_key))
        return Sum(inner, When(self.scale_key, light))

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        small = at_latents(value, request)
        return {self.context_key("light"): {"cond": torch.cat([small, small.mean(1, True)], dim=1)}}


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
    """Adds to each frame a wave of its own."""

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        when = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)[:, None]
        return x + 0.1 * torch.sin(when + torch.arange(x.shape[2], device=x.device))


class Motion(Adapter):
    """AnimateDiff: attention over frames after each spatial transformer (arXiv:2307.04725, 4.2)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        places = select(model).of(SpatialTransformer)
        return places.where(lambda seat: seat.path.startswith("unet.")).after("motion", self.module)

    def module(self, seat: Seat) -> nn.Module:
        norm: Any = seat.layer.layer("norm", nn.GroupNorm)
        width = norm.num_channels
        attend = self.layer(seat, lambda: Chain(nn.LayerNorm(width), SelfAttention(width, 2)))
        over_time = OverTime(clock=Clock(), attend=attend)
        return Residual(When(self.scale_key, over_time, Multiply(self.scale_key)))
