"""
IP-Adapter FaceID
=================

An image prompt from a face's features, with a LoRA in the same file: one adapter may have edits of
several kinds.
"""

from typing import Any

from ip_adapter import ImagePrompt
from lora import LoraChange
from torch import nn

from refiners_core import Edit, Multiply, Seat, Sum, When


class FaceId(ImagePrompt):
    """Adds a low-rank change of the queries to an image prompt."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        def changed(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, lambda: LoraChange(seat.layer))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        queries = model.slot("unet.linear").named("to_q")
        return (*super().edits(model), *queries.wrap(changed, name="face"))


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    model = tiny_model()
    face = FaceId(key="face").inject(model)
    print(model.slot("unet.cross_attention.attend")[0].chain)
