"""
IP-Adapter
==========

The UNet looks at an image as well as at the text: a second attention beside each cross-attention,
with the base's own queries (arXiv:2308.06721).
"""

# %%
# Attention to an image
# ---------------------
# The branch gets what the base's attention gets: queries, keys, values. It keeps the queries, and
# takes keys and values from tokens in the context.

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Lambda,
    Layer,
    Multiply,
    Parallel,
    Seat,
    Sum,
    UseContext,
    When,
)
from refiners_core.layers import Attend

TOKENS = 3


def queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q


class Masked(Layer):
    """Multiplies the features of each position by a mask of the picture, where there is one."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        mask = context.get(self.key)
        if mask is None:
            return inputs[0]
        height, width = mask.shape[-2:]
        step = round((height * width / inputs[0].shape[1]) ** 0.5)
        small = nn.functional.avg_pool2d(mask, step)
        return inputs[0] * small.flatten(2).transpose(1, 2)


class Look(Chain):
    """Attends from the base's queries to the adapter's tokens (arXiv:2308.06721, equation 5)."""

    def __init__(self, adapter: Adapter, width: int, inner: int, heads: int) -> None:
        tokens = adapter.context_key("tokens")
        super().__init__(
            Parallel(
                q=Lambda(queries),
                k=Chain(UseContext(tokens), to_k=nn.Linear(width, inner, bias=False)),
                v=Chain(UseContext(tokens), to_v=nn.Linear(width, inner, bias=False)),
            ),
            attend=Attend(heads),
            mask=Masked(adapter.context_key("mask")),
            scale=Multiply(adapter.scale_key),
        )


# %%
# The adapter
# -----------
# A real one encodes the image with CLIP; this one averages it down to 2 x 2 pixels.


class ImagePrompt(Adapter):
    """Puts image tokens beside the text (arXiv:2308.06721, section 3.2)."""

    takes_condition: ClassVar[bool] = True
    takes_mask: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        width = model.unet.config.text_width
        self.width = width
        self.project = nn.Linear(3 * 4, TOKENS * width).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        return model.slot("unet.cross_attention.attend").wrap(self.beside, name="image")

    def beside(self, inner: nn.Module, seat: Seat) -> nn.Module:
        features = seat.chain.layer("to_out", nn.Linear).in_features
        look = self.layer(seat, lambda: Look(self, self.width, features, seat.layer.heads))
        return Sum(inner, When(self.scale_key, look))

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        flat = nn.functional.adaptive_avg_pool2d(value.to(request.dtype), 2).flatten(1)
        values = {
            "tokens": {
                "cond": self.project(flat).view(-1, TOKENS, self.width),
                "uncond": self.project(torch.zeros_like(flat)).view(-1, TOKENS, self.width),
            }
        }
        if request.mask is not None:
            side = (request.latent_height, request.latent_width)
            values["mask"] = {"cond": nn.functional.adaptive_avg_pool2d(request.mask, side)}
        return {self.context_key(name): value for name, value in values.items()}


# %%
# Two at once
# -----------

if __name__ == "__main__":
    from refiners_core import Condition
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    first, second = (ImagePrompt(key=key).inject(model) for key in ("first", "second"))
    print(model.slot("unet.cross_attention.attend")[0].chain.at("attend"))

    picture, left = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    conditions = {first: Condition(picture, mask=left), second: Condition(1 - picture, scale=0.5)}
    options = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    both = model.generate("a red circle", conditions=conditions, **options)
    first.eject()
    second.eject()
    print(
        f"{(both - model.generate('a red circle', **options)).abs().mean():.4f} away from the base"
    )
