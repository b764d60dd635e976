"""Trains the IP-Adapter: about six minutes on one core, after the base and the image encoder."""

import torch
from adapter_training import Lesson, adapt
from data import load_pictures
from loop import Recipe
from model import build_model
from refiners_ipadapter.adapter import IpAdapter
from refiners_playground.config import IMAGE_ENCODER
from refiners_playground.measure.image import ip_adapter
from refiners_playground.scene import draw
from run import WEIGHTS, arguments
from torch import nn

from refiners_core.models.clip import CLIP_IMAGE_KEYS
from refiners_core.weights import load

MEASURED = 32


@torch.no_grad()
def start_quiet(adapter: IpAdapter) -> None:
    """Initialises the image attentions so that they add nothing yet."""
    for name, weight in adapter.parts.named_parameters():
        if name.endswith("to_v_ip.weight"):
            nn.init.zeros_(weight)


def main() -> None:
    """Trains, measures with empty prompts on held-out scenes, writes fp16 weights."""
    options = arguments(
        __doc__ or "", steps=1000, batch=24, canonical=8000, placed=8000, measure_every=200
    )
    lesson = Lesson(
        pictures=[
            (0.5, load_pictures("canonical", options.canonical)),
            (0.5, load_pictures("placed", options.placed)),
        ],
        look=draw,
        text_dropped=0.5,
        condition_dropped=0.1,
        recipe=Recipe(muon=2e-3, adam=1e-3, decay=0.99),
    )
    torch.manual_seed(0)
    model = build_model("text_encoder", "unet", "autoencoder")
    prompter = IpAdapter(encoder=IMAGE_ENCODER).inject(model)
    load(prompter.encoder, WEIGHTS / "image_encoder.safetensors", CLIP_IMAGE_KEYS)
    prompter.encoder.requires_grad_(False)
    start_quiet(prompter)

    def measure() -> dict[str, float]:
        return ip_adapter().values(model, prompter, MEASURED)

    adapt("ip_adapter", model, prompter, prompter.parts, lesson, measure, options)
    prompter.half().save(WEIGHTS / "ip_adapter.safetensors")


if __name__ == "__main__":
    main()
