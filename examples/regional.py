"""
Regional prompts
================

Each part of a picture attends to a text of its own.
"""

# %%
# ``request.read`` encodes the texts of the regions. Around each cross-attention, the same layers
# run once for each region in a scope in which ``text`` is the region's, and masks join the outputs.

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat


class Regions(Chain):
    """Runs an attention to each text, and takes the output of each inside its mask."""

    def __init__(self, adapter: Adapter, inner: nn.Module) -> None:
        super().__init__(inner=inner)
        self.scale = adapter.scale_key
        self.texts, self.masks = adapter.context_key("texts"), adapter.context_key("masks")

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        whole = self.call(self.inner, context, *inputs)
        if self.scale not in context:
            return whole
        texts, masks = context[self.texts], context[self.masks]
        step = round((masks.shape[-2] * masks.shape[-1] / whole.shape[1]) ** 0.5)
        small = nn.functional.avg_pool2d(masks, step).flatten(2)[..., None]
        result = whole
        for i in range(texts.shape[1]):
            scope = context.scope()
            scope["text"] = texts[:, i]
            region = self.call(self.inner, scope, *inputs)
            result = result + context[self.scale] * small[:, i] * (region - whole)
        return result


class RegionalPrompts(Adapter):
    """Gives parts of a picture their own texts; its condition maps each text to a mask."""

    takes_condition: ClassVar[bool] = True

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def regional(inner: nn.Module, seat: Seat) -> nn.Module:
            return Regions(self, inner)

        return model.slot("unet.cross_attention").wrap(regional, stage="output", name="regions")

    def encode(self, value: dict[str, Tensor], request: Any) -> dict[str, dict[str, Tensor]]:
        side = (request.latent_height, request.latent_width)
        small = [nn.functional.adaptive_avg_pool2d(mask, side) for mask in value.values()]
        masks, texts = torch.cat(small, dim=1), request.read([*value])["text"][None]
        return {
            self.context_key("texts"): {"cond": texts},
            self.context_key("masks"): {"cond": masks, "uncond": torch.zeros_like(masks)},
        }


# %%
# Two shapes side by side
# -----------------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    left = torch.zeros(1, 1, model.size, model.size)
    left[..., : model.size // 2] = 1
    texts = {"a yellow star on a red background": left, "a blue heart on white": 1 - left}
    options = {"steps": 8, "seed": 3, "progress": False}
    pictures = [model.generate("a shape", **options)]
    with RegionalPrompts(key="regions").on(model) as regions:
        pictures.append(model.generate("a shape", conditions={regions: texts}, **options))
