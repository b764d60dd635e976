"""
ControlNet
==========

A network beside the UNet looks at a picture of conditions, and what it returns is added to the
skips (arXiv:2302.05543). It is made of the UNet's own classes and has weights of its own.
"""

# %%
# A side network
# --------------
# It runs before the UNet, by an edit on ``unet.input``, and leaves its outputs in the context.
# Where the UNet writes a skip, they are scaled and added, so each place can have its own scale.
# Nothing of the UNet knows about it.

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

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


def squeezed(value: Tensor, side: int) -> Tensor:
    """Returns pictures (rows, 3, height, width) in the size of latents, with a fourth channel."""
    small = nn.functional.adaptive_avg_pool2d(value, side)
    return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


class SideNetwork(Adapter, ABC):
    """Runs a network before the UNet and adds its outputs to the skips."""

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
            return Sum(inner, When(key, UseContext(key), Multiply(self.scale_key)))

        return (
            *model.slot("unet.input").before("control", before),
            *skips.wrap(added, name="control"),
            *mid.wrap(added, name="control"),
        )

    @abstractmethod
    def network(self, seat: Seat) -> nn.Module: ...

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        return {self.context_key("features"): {"cond": squeezed(value, request.latent_height)}}


def outputs(config: UNetConfig) -> Parallel:
    """Returns a convolution for each skip and one for the middle."""
    skips = [
        Chain(UseContext(skip_key(i)), nn.Conv2d(width, width, 1))
        for i, width in enumerate(config.skip_channels)
    ]
    width = config.channels[-1]
    return Parallel(*skips, mid=Chain(nn.Conv2d(width, width, 1)))


# %%
# The network
# -----------
# A copy of the way down, as a tree. ``rebind`` has it read other tokens where the UNet reads the
# text.


class ControlNet(SideNetwork):
    """Builds a network of the UNet's classes with its own weights (arXiv:2302.05543, section 3.2).

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
        self.side = Scope(
            time=TimeEmbedding(config),
            stem=Sum(conv_in=conv_in, picture=picture),
            write=SkipWrite(0),
            down=DownPath(config),
            mid=MidBlock(config),
            outputs=outputs(config),
            rebind={"text": self.reads} if self.reads != "text" else None,
        ).to(model.unet.dtype)

    def network(self, seat: Seat) -> nn.Module:
        return self.side


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core import Condition
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    control = ControlNet(key="control").inject(model)
    print(model.slot("unet.skip.write")[0].chain)

    picture = torch.rand(1, 3, 32, 32)
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    without = model.generate("a red circle", conditions={control: None}, **options)
    for scale in (0.0, 0.5, 1.0):
        conditions = {control: Condition(picture, scale=scale)}
        steered = model.generate("a red circle", conditions=conditions, **options)
        print(f"scale {scale}: {(steered - without).abs().mean():.4f} away from the base")
