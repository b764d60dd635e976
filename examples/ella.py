"""
ELLA
====

Another reader of the prompt, whose tokens depend on the timestep (arXiv:2403.05135, section 3.2).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Edit,
    Lambda,
    Parallel,
    Passthrough,
    SetContext,
    UseContext,
    When,
)


class Connector(Chain):
    """Turns features of a language model into tokens, differently at each noise level."""

    def __init__(self, features: str, width: int) -> None:
        super().__init__(
            Parallel(UseContext(features), UseContext("timestep")),
            Lambda(at_time),
            nn.Linear(width, width),
        )


def at_time(features: Tensor, timestep: Tensor) -> Tensor:
    return features * (1 + torch.cos(timestep.to(features.dtype) / 200)).view(-1, 1, 1)


class Ella(Adapter):
    """Writes its tokens under `text` before the UNet runs (arXiv:2403.05135, section 3.2)."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        self.width = model.unet.config.text_width
        self.reader = nn.Embedding(256, self.width).to(model.unet.dtype)
        self.connector = Connector(self.context_key("features"), self.width).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        write = Passthrough(When(self.scale_key, self.connector, SetContext("text")))
        return model.slot("unet.input").before("ella", lambda seat: write)

    def encode(self, value: str, request: Any) -> dict[str, dict[str, Tensor]]:
        def read(text: str) -> Tensor:
            return self.reader(torch.tensor([list(text.encode().ljust(16)[:16])]))

        return {self.context_key("features"): {"cond": read(value), "uncond": read("")}}


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    model = tiny_model()
    ella = Ella(key="ella").inject(model)
    print(model.unet.layer("input+ella@ella", Chain))
    model.generate(
        "a red circle", conditions={ella: "a red circle"}, steps=2, seed=7, progress=False
    )
