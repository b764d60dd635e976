"""
ControlNeXt
===========

A small network reads the picture of conditions once. Its features are added at a single place:
after the first convolution and its skip, before the first level (arXiv:2408.06070, section 3).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat


class AddNormalised(Layer):
    """Adds features that have the mean and deviation of its input (section 3.3)."""

    def __init__(self, features: str, scale: str) -> None:
        super().__init__()
        self.features, self.scale = features, scale

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x, scale = inputs[0], context.get(self.scale)
        if scale is None:
            return x
        return x + like(context[self.features], x) * scale


def like(features: Tensor, x: Tensor) -> Tensor:
    """Returns features with the mean and deviation of `x`, row by row."""
    dims, eps = (1, 2, 3), 1e-5
    spread, mean = torch.std_mean(features, dims, keepdim=True)
    target_spread, target_mean = torch.std_mean(x, dims, keepdim=True)
    return (features - mean) / (spread + eps) * target_spread + target_mean


class ControlNext(Adapter):
    """Adds the features of a small network before the first level (arXiv:2408.06070)."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        width = model.unet.config.channels[0]
        layers = nn.Conv2d(3, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 1)
        self.network = Chain(*layers).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def added(seat: Seat) -> nn.Module:
            return AddNormalised(self.context_key("features"), self.scale_key)

        return model.slot("unet.down.0").before("control", added)

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        side = request.latent_height, request.latent_width
        small = nn.functional.adaptive_avg_pool2d(value.to(request.dtype), side)
        return {self.context_key("features"): {"cond": self.network(small)}}


# %%
# Strong at first, then fading
# ----------------------------

if __name__ == "__main__":
    from refiners_core import Condition
    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    control = ControlNext(key="control").inject(model)
    print(model.slot("unet.down.0"))
    picture = torch.rand(1, 3, 32, 32)
    options = {"steps": 4, "seed": 7, "output": "latents", "progress": False}
    without = model.generate("a red circle", conditions={control: None}, **options)
    for scale in (1.0, [(0.0, 1.0), (0.5, 0.0)], lambda progress: 1 - progress):
        conditions = {control: Condition(picture, scale=scale)}
        steered = model.generate("a red circle", conditions=conditions, **options)
        print(f"{(steered - without).abs().mean():.4f} away from the base")
