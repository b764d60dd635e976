"""
T2I-Adapter
===========

Features of a picture, computed once for a generation, are added after each level on the way down
(arXiv:2302.08453, section 3.3).
"""

# %%
# ``encode`` runs once. What it returns are context values, a tensor for each branch; each level
# adds its own.

from typing import Any, ClassVar

from controlnet import squeezed
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Multiply, Seat, Sum, UseContext, When


class T2iAdapter(Adapter):
    """Adds features of a picture after each level (arXiv:2302.08453, section 3.3)."""

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
            features = Chain(UseContext(keys[seat.path]), Multiply(self.scale_key))
            return Sum(inner, When(self.scale_key, features))

        return levels.wrap(added, name="features")

    def encode(self, value: Tensor, request: Any) -> dict[str, dict[str, Tensor]]:
        self.encoded += 1
        sides = [request.latent_height // 2**i for i in range(len(self.levels))]
        return {
            self.context_key(f"level.{i}"): {"cond": layer(squeezed(value, side))}
            for i, (layer, side) in enumerate(zip(self.levels, sides, strict=True))
        }


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    import torch

    from refiners_core.testing import tiny_model

    torch.manual_seed(0)
    model = tiny_model()
    adapter = T2iAdapter(key="t2i").inject(model)
    picture = torch.rand(1, 3, 32, 32)
    model.generate("a red circle", conditions={adapter: picture}, steps=4, seed=7, progress=False)
    print(f"4 steps, features computed {adapter.encoded} time")
