"""
Reference-only
==============

The UNet looks at a reference picture through what it makes of that picture itself: a pass that
writes keys and values, and one that reads them.
"""

# %%
# A layer before ``denoise.predict`` runs the UNet on the reference, in a scope of its own, and
# leaves keys and values in the context. Each self-attention then joins them to its own.

from typing import Any, ClassVar

import torch
from style_aligned import Else
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Passthrough, Seat, When


class Reference(Adapter):
    """Adds a pass over a reference, and attention to what it saw."""

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
    """Runs the UNet on the reference, as noisy as the latents are now, and keeps what it saw."""

    def __init__(self, adapter: Adapter, unet: Chain, keys: list[str]) -> None:
        super().__init__(unet=unet)
        self.latents, self.mode = adapter.context_key("latents"), adapter.context_key("mode")
        self.keys = keys

    def run(self, context: Context, *inputs: Tensor) -> None:
        count = len(inputs[0]) // len(context["branches"])
        writing = context.scope()
        for key in context["conditions"]:
            writing[key] = context[key][-count:]  # the rows of `cond`, the last branch
        writing["branches"], writing[self.mode] = ("cond",), "write"
        level = float(context["timestep"]) / 1000
        reference = writing[self.latents] * (1 - level) + context["latents"] * level
        self.call(self.unet, writing, reference)
        for key in self.keys:
            context[key] = writing[key]


class LookBack(Layer):
    """Writes keys and values in the first pass, and joins them to its own in the second."""

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


# %%
# A reference for the playground
# ------------------------------

if __name__ == "__main__":
    import refiners

    from refiners_core.picture import to_pixels

    model = refiners.load_model("playground")
    options = {"steps": 6, "seed": 1, "progress": False}
    seen = model.generate("a yellow star on a blue background", **options)
    pictures = [seen, model.generate("a star", **options)]
    reference = Reference(key="reference").inject(model)
    latents = model.encode(to_pixels(seen)).detach()
    pictures.append(model.generate("a star", conditions={reference: latents}, **options))
    reference.eject()
