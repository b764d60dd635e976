"""
Another text encoder
====================

A component of a model is a place too: one adapter replaces the text encoder, another adds tokens
after its own.
"""

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Edit,
    Identity,
    Lambda,
    Seat,
    When,
    select,
)


class TextEncoder(Adapter):
    """Replaces the text encoder."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        width = model.unet.config.text_width

        def other(seat: Seat) -> nn.Module:
            return self.layer(seat, lambda: Chain(nn.Embedding(600, width), nn.LayerNorm(width)))

        return select(model).named("text_encoder").replace(other)


class Longer(Adapter):
    """Adds learnt tokens after those of the text, for every branch."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        width = model.unet.config.text_width

        def more(inner: nn.Module, seat: Seat) -> nn.Module:
            tokens = self.layer(seat, lambda: nn.Embedding(2, width))
            return Chain(
                inner, Concatenate(Identity(), When(self.scale_key, Lambda(first_two), tokens))
            )

        return select(model).named("text_encoder").wrap(more, stage="output")


def first_two(x: Tensor) -> Tensor:
    return torch.arange(2, device=x.device).expand(len(x), 2)


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    model = tiny_model()
    longer = Longer(key="longer").inject(model)
    for scale in (None, torch.tensor(1.0)):
        context = {} if scale is None else {longer.scale_key: scale}
        print(f"{model.read(['a red circle'], context)['text'].shape[1]} tokens")
