"""Warmth: adds a published shift to the guided prediction."""

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Layer, Multiply, Residual, Source, When
from refiners_core.models.device import built_on
from refiners_core.weights import KeyMap, load, published

LAYOUT = KeyMap({"shift": "warmth"})


class Shift(Layer):
    """Returns a value for each channel of the latents, of the shape of its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))

    def run(self, context: Any, *inputs: Any) -> Tensor:
        """Returns the shift, (rows, channels, height, width)."""
        return self.shift[:, None, None].expand_as(inputs[0])


class Warmth(Adapter):
    """Adds a shift of each channel of the latents to every guided prediction."""

    def build(self, model: Any, source: Source | None) -> None:
        """Builds the shift; untrained, it is zero."""
        with built_on("meta" if source else model.unet.device):
            self.shift = Shift(model.facts["latent_channels"])
        where = {"device": model.unet.device, "dtype": model.unet.dtype}
        if source is None:
            self.shift.to(**where)
        else:
            load(self.shift, source.files["weights"], LAYOUT, **where)

    def edits(self, model: Any) -> Edit:
        """Adds the shift to the output of the guidance."""

        def warmed(inner: nn.Module, seat: Any) -> Chain:
            shift = When(self.scale_key, self.shift, Multiply(self.scale_key))
            return Chain(inner, Residual(shift))

        return model.slot("denoise.guidance").wrap(warmed, stage="output", name="warmth")

    def published(self) -> Any:
        """Returns the shift under its published name."""
        return published(self.shift, LAYOUT)
