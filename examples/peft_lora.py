"""
LoRA from PEFT's folders on language models
===========================================

Files of LoRAs (arXiv:2106.09685) name layers as they are published. ``model.published_places`` maps
these names to places, also where one published layer is several here, such as the fused projections
of GPT-2.
"""

# %%
# A file and the model that it is for
# -----------------------------------

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Edit, Model, Multiply, Seat, Sum, When
from refiners_core.testing import tiny_language_model
from refiners_core.weights import Transform, read, stacked, write

PREFIX = "base_model.model."
SLOT = "decoder.linear"


class PeftLora(Adapter):
    """Adds ``scale * B A`` to each layer that the file names, with ``scale = alpha / r``."""

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(**options)
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        self.strength = config["lora_alpha"] / config["r"]
        self.tensors: Mapping[str, Tensor] = read(folder / "adapter_model.safetensors")

    def edits(self, model: Model) -> tuple[Edit, ...]:
        shares = {
            seat.path: (name, transform)
            for name, places in model.published_places(SLOT)["decoder"].items()
            for seat, transform in places
            if f"{PREFIX}{name}.lora_A.weight" in self.tensors
        }

        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, lambda: self.change(*shares[seat.path]))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return model.slot(SLOT).where(lambda seat: seat.path in shares).wrap(beside, name="lora")

    def change(self, name: str, transform: Transform) -> nn.Module:
        """Returns the change of one place: all of A, and its share of the rows of B."""
        a, b = (self.tensors[f"{PREFIX}{name}.lora_{half}.weight"] for half in "AB")
        rows = stacked(transform.share, transform.shares, sizes=transform.sizes).part(b)
        assert rows is not None
        down, up = (nn.Linear(x.shape[1], x.shape[0], bias=False) for x in (a, rows))
        down.weight.data, up.weight.data = a, rows * self.strength
        return Chain(down, up)


# %%
# An example
# ----------


def write_folder(folder: Path, layer: str, inputs: int, outputs: int, rank: int = 2) -> None:
    """Writes a random LoRA of one layer as PEFT does."""
    write(
        {
            f"{PREFIX}{layer}.lora_A.weight": torch.randn(rank, inputs),
            f"{PREFIX}{layer}.lora_B.weight": torch.randn(outputs, rank),
        },
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 4}))


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    model = tiny_language_model(ends=())
    with TemporaryDirectory() as place:
        write_folder(Path(place), "model.layers.0.self_attn.q_proj", 16, 16)
        with PeftLora(Path(place), name="lora").on(model):
            print(model.layer("decoder.blocks.0.attention.project", Chain))
            print(repr(model.generate("Once upon a time", max_new_tokens=8)))
