"""StyleAligned and reference-only: self-attention across the batch, and across two passes."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Passthrough, Seat, When


class ShareFirst(Layer):
    """Lets every picture of a branch look at the first one too (arXiv:2312.02133, figure 4)."""

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        branches = len(context["branches"])
        q, k, v = (x.unflatten(0, (branches, -1)) for x in inputs)
        q, k = (aligned(x) for x in (q, k))
        k, v = (torch.cat([x[:, :1].expand_as(x), x], dim=2) for x in (k, v))
        return tuple(x.flatten(0, 1) for x in (q, k, v))


def aligned(x: Tensor) -> Tensor:
    """Gives features the mean and spread of the first picture's (equation 3)."""
    mean, spread = x.mean(2, keepdim=True), x.std(2, keepdim=True) + 1e-5
    return (x - mean) / spread * spread[:, :1] + mean[:, :1]


class StyleAligned(Adapter):
    def edits(self, model: Any) -> tuple[Edit, ...]:
        return model.slot("unet.self_attention.attend").wrap(self.shared, stage="inputs")

    def shared(self, inner: nn.Module, seat: Seat) -> nn.Module:
        return Chain(Else(self.scale_key, ShareFirst()), inner)


class Else(When):
    """Runs its children where a key has a value, and passes its inputs on elsewhere."""

    def run(self, context: Context, *inputs: Any) -> Any:
        done = super().run(context, *inputs)
        return done if done is not None else inputs if len(inputs) > 1 else inputs[0]


class Reference(Adapter):
    """Looks at a reference picture by what the UNet itself makes of it: a pass that writes keys and
    values, and one that reads them."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        attention = model.slot("unet.self_attention.attend")
        keys = {seat.path: self.context_key(f"seen.{i}") for i, seat in enumerate(attention)}

        def reading(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(Else(self.scale_key, LookBack(self, keys[seat.path])), inner)

        def writing(seat: Seat) -> nn.Module:
            look = LookAt(self, seat.chain.layer(f"{seat.name}.unet", Chain), list(keys.values()))
            return Passthrough(When(self.scale_key, look))

        return (
            *attention.wrap(reading, stage="inputs"),
            *model.slot("denoise.predict").before("reference", writing),
        )

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        side = (request.latent_height, request.latent_width)
        return {self.context_key("latents"): {"cond": nn.functional.interpolate(value, side)}}


class LookAt(Chain):
    """Runs the UNet on the reference, so noisy as the latents are now, and keeps what is seen."""

    def __init__(self, adapter: Adapter, unet: Chain, keys: list[str]) -> None:
        super().__init__(unet=unet)
        self.latents, self.mode = adapter.context_key("latents"), adapter.context_key("mode")
        self.keys = keys

    def run(self, context: Context, *inputs: Tensor) -> None:
        count = len(inputs[0]) // len(context["branches"])
        writing = context.scope()
        for key in context["conditions"]:
            writing[key] = context[key][-count:]  # what `cond`, the last branch, is told
        writing["branches"], writing[self.mode] = ("cond",), "write"
        level = float(context["timestep"]) / 1000
        reference = writing[self.latents] * (1 - level) + context["latents"] * level
        self.call(self.unet, writing, reference)
        for key in self.keys:
            context[key] = writing[key]


class LookBack(Layer):
    """Writes keys and values in the one pass, and joins them to its own in the other."""

    def __init__(self, adapter: Adapter, key: str) -> None:
        super().__init__()
        self.key, self.mode = key, adapter.context_key("mode")

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        q, k, v = inputs
        if context.get(self.mode) == "write":
            context[self.key] = (k, v)
            return inputs
        seen_k, seen_v = (
            x.repeat(len(context["branches"]), 1, 1)[: len(k)] for x in context[self.key]
        )
        return q, torch.cat([k, seen_k], dim=1), torch.cat([v, seen_v], dim=1)
