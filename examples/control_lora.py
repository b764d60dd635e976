"""
Control-LoRA
============

A side network whose weights are the base's own plus a low-rank change. Its chains are a copy of
the base's structure around the very same leaves, so the adapter stores the changes alone.
"""

# %%
# ``chain.copy()`` returns new chains around the same layers. They belong to the tree that the
# adapter wires in: the adapter owns nothing of the base, and an edit of the base does not reach
# them.

from typing import Any

import torch
from controlnet import SideNetwork, outputs
from lora import LoraChange
from torch import Tensor, nn
from torch.func import functional_call

from refiners_core import Chain, Scope, Seat, Sum, UseContext
from refiners_core.models.unet import SkipWrite


class WithTensors(nn.Module):
    """Runs another module's layer with some of its tensors replaced."""

    def __init__(self, layer: nn.Module, tensors: nn.ParameterDict) -> None:
        super().__init__()
        self.layer, self.tensors = layer, tensors

    def forward(self, *inputs: Tensor) -> Tensor:
        return functional_call(self.layer, dict(self.tensors.items()), inputs)


class ControlLora(SideNetwork):
    """Adds low-rank changes to a copy of the UNet's way down, and replaces a bias."""

    def build(self, model: Any, source: Any) -> None:
        config = model.unet.config
        self.ends = Chain(
            picture=Chain(
                UseContext(self.context_key("features")), nn.Conv2d(4, config.channels[0], 1)
            ),
            outputs=outputs(config),
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


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    control = ControlLora(key="control-lora").inject(model)
    side = model.unet.layer("input+control@control-lora.When_0.network", Chain)
    shared = {id(weight) for weight in side.parameters()} & {id(w) for w in model.parameters()}
    print(f"{len(shared)} tensors of the side network are the base's own")
    print(f"{len(list(control.parameters()))} tensors are the adapter's")
    model.generate(
        "a red circle",
        conditions={control: torch.rand(1, 3, 32, 32)},
        steps=2,
        seed=7,
        progress=False,
    )
