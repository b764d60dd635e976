"""
FreeU
=====

Better pictures from the same weights: the backbone's features grow stronger where they join a
skip, and low frequencies of the skip weaker (arXiv:2309.11497).
"""

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat


class Amplify(Layer):
    """Makes half of the backbone's channels stronger where their mean is (equation 4)."""

    def __init__(self, scale: str, by: float) -> None:
        super().__init__()
        self.scale, self.by = scale, by

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x, scale = inputs[0], context.get(self.scale)
        if scale is None:
            return x
        mean = x.mean(1, keepdim=True)
        low, high = (mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True))
        gain = 1 + scale * (self.by - 1) * (mean - low) / (high - low + 1e-6)
        half = x.shape[1] // 2
        return torch.cat([x[:, :half] * gain, x[:, half:]], dim=1)


class Damp(Layer):
    """Makes low frequencies of a skip weaker (equations 5 to 7)."""

    def __init__(self, scale: str, by: float) -> None:
        super().__init__()
        self.scale, self.by = scale, by

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x, scale = inputs[0], context.get(self.scale)
        if scale is None:
            return x
        waves = torch.fft.fft2(x)
        waves[..., :1, :1] *= 1 + scale * (self.by - 1)
        return torch.fft.ifft2(waves).real


# %%
# Two slots meet at each skip: ``unet.skip.backbone`` is the running value, ``unet.skip.read`` what
# the skip brings. Both change what comes out, so the stage is ``output``.


class FreeU(Adapter):
    """Changes both sides of the skips on the levels with the fewest pixels (arXiv:2309.11497)."""

    def __init__(self, backbone: float = 1.4, skip: float = 0.4, **options: Any) -> None:
        super().__init__(**options)
        self.backbone, self.skip = backbone, skip

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def changed(layer: type[Amplify | Damp], by: float):
            def make(inner: nn.Module, seat: Seat) -> nn.Module:
                return Chain(inner, layer(self.scale_key, by))

            return make

        def is_deep(seat: Seat) -> bool:
            return ".up.0." in seat.path

        backbone = model.slot("unet.skip.backbone").where(is_deep)
        skip = model.slot("unet.skip.read").where(is_deep)
        return (
            *backbone.wrap(changed(Amplify, self.backbone), stage="output", name="free"),
            *skip.wrap(changed(Damp, self.skip), stage="output", name="free"),
        )


# %%
# On the playground
# -----------------
# At scale 0 the result is that of the base, bit for bit.

if __name__ == "__main__":
    import refiners

    from refiners_core import Condition

    model = refiners.load_model("playground")
    options = {"steps": 4, "seed": 1, "output": "latents", "progress": False}
    base = model.generate("a star", **options)
    free = FreeU(key="free").inject(model)
    print(model.slot("unet.skip.backbone")[0].chain)
    for scale in (0.0, 0.5, 1.0):
        changed = model.generate("a star", conditions={free: Condition(scale=scale)}, **options)
        print(f"scale {scale}: {(changed - base).abs().mean():.4f} away from the base")
