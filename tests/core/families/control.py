"""ControlNet, InstantID's ControlNet, Control-LoRA, T2I-Adapter: networks beside the UNet."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from refiners_core import (
    Adapter,
    Chain,
    Distribute,
    Edit,
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
from refiners_core.models.unet import (
    DownPath,
    MidBlock,
    SkipWrite,
    TimeEmbedding,
    UNetConfig,
    skip_key,
)

from .low_rank import LoraChange


def squeezed(value: Tensor, side: int) -> Tensor:
    """A picture (rows, 3, height, width) at the size of the latents, with a fourth channel."""
    small = nn.functional.adaptive_avg_pool2d(value, side)
    return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


class SideNetwork(Adapter, ABC):
    """What the family shares: runs before the UNet, and its outputs are added to the skips."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        skips, mid = model.slot("unet.skip.write"), model.slot("unet.mid.output")
        keys = {seat.path: self.context_key(f"skip.{i}") for i, seat in enumerate(skips)}
        keys[mid[0].path] = self.context_key("mid")
        features = self.context_key("features")

        def before(seat: Seat) -> nn.Module:
            write = Distribute(*map(SetContext, keys.values()))
            return Passthrough(When(features, network=self.network(seat), write=write))

        def added(inner: nn.Module, seat: Seat) -> nn.Module:
            key = keys[seat.path]
            return Sum(inner, When(key, UseContext(key)))

        return (
            *model.slot("unet.input").before("control", before),
            *skips.wrap(added, name="control"),
            *mid.wrap(added, name="control"),
        )

    @abstractmethod
    def network(self, seat: Seat) -> nn.Module: ...

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        return {self.context_key("features"): {"cond": squeezed(value, request.latent_height)}}


def outputs(config: UNetConfig, scale: str) -> Parallel:
    """A convolution for each skip and one for the middle, scaled."""
    skips = [
        Chain(UseContext(skip_key(i)), nn.Conv2d(width, width, 1), Multiply(scale))
        for i, width in enumerate(config.skip_channels)
    ]
    width = config.channels[-1]
    return Parallel(*skips, mid=Chain(nn.Conv2d(width, width, 1), Multiply(scale)))


class ControlNet(SideNetwork):
    """A network of the UNet's classes and its own weights (arXiv:2302.05543, section 3.2).

    With `reads`, it looks at those tokens where others look at the text, as InstantID's does
    (arXiv:2401.07519, section 3.3).
    """

    def __init__(self, reads: str = "text", **options: Any) -> None:
        super().__init__(**options)
        self.reads = reads

    def build(self, model: Any, source: Any) -> None:
        config: UNetConfig = model.unet.config
        conv_in = nn.Conv2d(config.in_channels, config.channels[0], 3, padding=1)
        picture = Chain(
            UseContext(self.context_key("features")), nn.Conv2d(4, config.channels[0], 1)
        )
        self.own = Scope(
            time=TimeEmbedding(config),
            stem=Sum(conv_in=conv_in, picture=picture),
            write=SkipWrite(0),
            down=DownPath(config),
            mid=MidBlock(config),
            outputs=outputs(config, self.scale_key),
            rebind={"text": self.reads} if self.reads != "text" else None,
        ).to(model.unet.dtype)

    def network(self, seat: Seat) -> nn.Module:
        return self.own


class WithTensors(nn.Module):
    """A layer of somebody else's, some of whose tensors are others."""

    def __init__(self, layer: nn.Module, own: nn.ParameterDict) -> None:
        super().__init__()
        self.layer, self.own = layer, own

    def forward(self, *inputs: Tensor) -> Tensor:
        return functional_call(self.layer, dict(self.own.items()), inputs)


class ControlLora(SideNetwork):
    """A side network whose weights are the base's own plus low rank, its biases others.

    Its chains are a copy of the base's structure that shares the leaves, made while wiring: they
    are the tree's, so the adapter owns nothing of the base, and nobody else's edit of the base
    reaches them.
    """

    def build(self, model: Any, source: Any) -> None:
        config = model.unet.config
        self.ends = Chain(
            picture=Chain(
                UseContext(self.context_key("features")), nn.Conv2d(4, config.channels[0], 1)
            ),
            outputs=outputs(config, self.scale_key),
        ).to(model.unet.dtype)
        for seat in self.changed(model):
            self.layer(seat, lambda layer=seat.layer: LoraChange(layer))
        self.biases = nn.ParameterDict({"bias": torch.ones(config.channels[0])})
        self.biases.to(model.unet.dtype)

    @staticmethod
    def changed(model: Any) -> list[Seat]:
        way = ("unet.time.", "unet.down.", "unet.mid.")
        seats = (*model.slot("unet.linear"), *model.slot("unet.conv"))
        return [seat for seat in seats if seat.path.startswith(way)]

    def network(self, seat: Seat) -> nn.Module:
        unet: Any = seat.chain
        parts = {name: getattr(unet, name).copy() for name in ("time", "down", "mid")}
        twin = Chain(**parts)
        for path, change in self.own_layers.named_children():
            above, _, name = path.removeprefix("unet/").replace("/", ".").rpartition(".")
            block = twin.layer(above, Chain)
            block.replace(name, Sum(block.layer(name), change))
        stem = Sum(conv_in=WithTensors(unet.conv_in, self.biases), picture=self.ends.picture)
        return Scope(
            time=twin.time,
            stem=stem,
            write=SkipWrite(0),
            down=twin.down,
            mid=twin.mid,
            outputs=self.ends.outputs,
        )


class T2iAdapter(Adapter):
    """Features of a picture, made once, are added after each level (arXiv:2302.08453, 3.3)."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        widths = [*model.unet.config.channels]
        self.levels = nn.ModuleList([nn.Conv2d(4, width, 1) for width in widths])
        self.levels.to(model.unet.dtype)
        self.encoded = 0

    def edits(self, model: Any) -> tuple[Edit, ...]:
        levels = model.slot("unet.down.output")
        keys = {seat.path: self.context_key(f"level.{i}") for i, seat in enumerate(levels)}

        def added(inner: nn.Module, seat: Seat) -> nn.Module:
            given = Chain(UseContext(keys[seat.path]), Multiply(self.scale_key))
            return Sum(inner, When(self.scale_key, given))

        return levels.wrap(added, name="features")

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        self.encoded += 1
        sides = [request.latent_height // 2**i for i in range(len(self.levels))]
        return {
            self.context_key(f"level.{i}"): {"cond": layer(squeezed(value, side))}
            for i, (layer, side) in enumerate(zip(self.levels, sides, strict=True))
        }
