"""
StyleAligned
============

Pictures of one batch share a style, without any weights: in self-attention each looks at the first
one too (arXiv:2312.02133).
"""

# %%
# The edit changes what goes into attention, so it is a wrap of the stage ``inputs``. ``Else``
# passes the inputs on while the adapter does not act.

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Layer, Seat, When


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


class Else(When):
    """Runs its children where a key has a value, and passes its inputs on elsewhere."""

    def run(self, context: Context, *inputs: Any) -> Any:
        result = super().run(context, *inputs)
        return result if result is not None else inputs if len(inputs) > 1 else inputs[0]


class StyleAligned(Adapter):
    """Shares self-attention across a batch (arXiv:2312.02133)."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        return model.slot("unet.self_attention.attend").wrap(self.shared, stage="inputs")

    def shared(self, inner: nn.Module, seat: Seat) -> nn.Module:
        return Chain(Else(self.scale_key, ShareFirst()), inner)


# %%
# Three pictures, alone and in one style
# --------------------------------------

if __name__ == "__main__":
    import refiners

    model = refiners.load_model("playground")
    options = {"count": 3, "steps": 6, "seed": 1, "progress": False}
    pictures = model.generate("a star", **options)
    with StyleAligned(key="style").on(model):
        pictures += model.generate("a star", **options)
