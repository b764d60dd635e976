"""
MultiDiffusion
==============

Large pictures from a model of small ones: the UNet runs on overlapping tiles, and the mean of its
predictions takes the step (arXiv:2302.08113).
"""

# %%
# ``denoise.predict`` is where the UNet runs on the rows of all passes. A wrap of the stage
# ``output`` runs whatever it wears on one tile after another, each in a scope of its own and with a
# memory of its own: an adapter that keeps values from step to step keeps them for each tile.

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat


class Tiled(Chain):
    """Runs its child on overlapping tiles and takes means (arXiv:2302.08113, equation 5)."""

    def __init__(self, inner: nn.Module, scale: str, side: int, stride: int) -> None:
        super().__init__(inner=inner)
        self.scale, self.side, self.stride = scale, side, stride

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        if self.scale not in context:
            return self.call(self.inner, context, x)
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for top in self.starts(x.shape[-2]):
            for left in self.starts(x.shape[-1]):
                tile = (..., slice(top, top + self.side), slice(left, left + self.side))
                scope = context.scope(memory=context.memory.part(f"{self.scale}.{top}.{left}"))
                total[tile] += self.call(self.inner, scope, x[tile])
                count[tile] += 1
        return total / count

    def starts(self, length: int) -> list[int]:
        """Returns where tiles begin along a side; the last one ends with it."""
        last = max(length - self.side, 0)
        return sorted({*range(0, last, self.stride), last})


class MultiDiffusion(Adapter):
    """Predicts noise tile by tile (arXiv:2302.08113)."""

    def __init__(self, side: int = 4, stride: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.side, self.stride = side, stride

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def tiled(inner: nn.Module, seat: Seat) -> nn.Module:
            return Tiled(inner, self.scale_key, self.side, self.stride)

        return model.slot("denoise.predict").wrap(tiled, stage="output", name="tiles")


# %%
# A wide picture
# --------------
# The playground draws one shape in a picture; each tile begins one, and their means join them.

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    side = model.size // model.autoencoder.config.reduction
    options = {"size": (2 * model.size, model.size), "steps": 6, "seed": 3, "progress": False}
    with MultiDiffusion(side=side, stride=side // 2, key="tiles").on(model):
        pictures = [model.generate("a yellow star on a blue background", **options)]
