"""Trains the ControlNet on edges: about ten minutes on one core, after `train_base.py`."""

import torch
from adapter_training import Lesson, adapt
from data import load_pictures
from loop import Recipe
from model import FILES, build_model
from refiners_controlnet.adapter import ControlNet
from refiners_playground.edge import edges
from refiners_playground.measure.control import controlnet
from refiners_playground.scene import Scene, draw
from run import RUNS, WEIGHTS, arguments
from torch import Tensor

from refiners_core import Model, Source
from refiners_core.weights import read, write

CONDITION_CHANNELS = (16, 32, 64)
MEASURED = 24


def look(scenes: list[Scene]) -> Tensor:
    """Returns the edges of scenes as pictures with three equal channels."""
    return edges(draw(scenes)).expand(-1, 3, -1, -1)


def copy_of_base(model: Model) -> Source:
    """Writes initial weights: a copy of the UNet's encoder, and new layers that add nothing yet."""
    fresh = ControlNet(channels=CONDITION_CHANNELS)
    with fresh.on(model):
        tensors = dict(fresh.published())
    base = read(WEIGHTS / FILES["unet"][0])
    tensors |= {name: base[name].float() for name in tensors if name in base}
    path = RUNS / "controlnet" / "start.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write(tensors, path)
    return Source({"weights": path})


def main() -> None:
    """Trains, measures edges on held-out scenes, writes fp16 weights."""
    options = arguments(
        __doc__ or "", steps=700, batch=24, placed=8000, varied=16000, measure_every=200
    )
    lesson = Lesson(
        pictures=[
            (0.75, load_pictures("placed", options.placed)),
            (0.25, load_pictures("varied", options.varied)),
        ],
        look=look,
        text_dropped=0.3,
        condition_dropped=0.0,
        recipe=Recipe(muon=2e-3, adam=1e-3, decay=0.99),
    )
    torch.manual_seed(0)
    model = build_model("text_encoder", "unet", "autoencoder")
    control = ControlNet(weights=lambda _: copy_of_base(model)).inject(model)

    def measure() -> dict[str, float]:
        return controlnet().values(model, control, MEASURED)

    adapt("controlnet", model, control, control.parts, lesson, measure, options)
    control.half().save(WEIGHTS / "controlnet.safetensors")


if __name__ == "__main__":
    main()
