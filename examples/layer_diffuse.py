"""
LayerDiffuse
============

Transparent pictures: an encoder hides the transparency in the latents by an offset, and a decoder
finds it again and writes a fourth channel (arXiv:2402.17113, section 3.1).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from refiners_core import Adapter, Chain, Context, Edit, Identity, Layer, Parallel, Seat


class Offset(Layer):
    """Adds an offset to the mean of the latents."""

    def __init__(self, offset: str, scale: str) -> None:
        super().__init__()
        self.offset, self.scale = offset, scale

    def run(self, context: Context, *inputs: Tensor) -> tuple[Tensor, ...]:
        mean, log_variance = inputs
        scale = context.get(self.scale)
        if scale is None:
            return mean, log_variance
        return mean + context[self.offset] * scale, log_variance


class Transparency(Layer):
    """Appends a fourth channel, computed from a picture and its latents."""

    def __init__(self, head: nn.Module, scale: str) -> None:
        super().__init__()
        self.head, self.scale = head, scale

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        pixels, latents = inputs
        scale = context.get(self.scale)
        if scale is None:
            return pixels
        latents = interpolate(latents, pixels.shape[-2:])
        transparency = self.head(torch.cat([pixels, latents], dim=1)) * scale
        return torch.cat([pixels, transparency], dim=1)


class LayerDiffuse(Adapter):
    """Makes pictures with four channels; the condition is the transparency of the first picture."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        latents = model.autoencoder.config.latent_channels
        self.reader = nn.Conv2d(1, latents, 1).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        latents = self.reader.out_channels

        def offset(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, Offset(self.context_key("offset"), self.scale_key))

        def transparent(inner: nn.Module, seat: Seat) -> nn.Module:
            head = self.layer(seat, lambda: nn.Conv2d(3 + latents, 1, 3, padding=1))
            both = Parallel(pixels=inner, latents=Identity())
            return Chain(both, Transparency(head, self.scale_key))

        return (
            *model.slot("autoencoder.encode").wrap(offset, stage="output", name="offset"),
            *model.slot("autoencoder.decode").wrap(transparent, stage="output", name="alpha"),
        )

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        side = request.latent_height, request.latent_width
        small = adaptive_avg_pool2d(value[:, :1].to(request.dtype), side)
        return {self.context_key("offset"): {"cond": self.reader(small)}}


# %%
# A picture of four channels
# --------------------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    transparency = torch.rand(1, 1, 32, 32)
    options = {"image": torch.rand(1, 3, 32, 32), "steps": 2, "seed": 7, "progress": False}
    with LayerDiffuse(key="layer").on(model) as layer:
        picture = model.generate("a glass", conditions={layer: transparency}, **options)
    print(picture.mode, picture.size)
