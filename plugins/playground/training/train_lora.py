"""Trains a LoRA to draw in ink, a style unknown to the base: a few minutes on one core.

While the LoRA is worn, every prompt is drawn in that style, without a trigger word.
"""

import torch
from adapter_training import Lesson, adapt
from data import load_pictures
from loop import Recipe
from model import build_model
from refiners_lora.adapter import Lora
from refiners_playground.measure.style import Ink
from run import WEIGHTS, arguments

MEASURED = 24


def main() -> None:
    """Trains, measures with held-out prompts, writes fp16 weights."""
    options = arguments(
        __doc__ or "", steps=650, batch=24, rank=16, canonical=2000, varied=2000, measure_every=200
    )
    lesson = Lesson(
        pictures=[
            (0.6, load_pictures("inked canonical", options.canonical)),
            (0.4, load_pictures("inked varied", options.varied)),
        ],
        look=None,
        text_dropped=0.1,
        condition_dropped=0.0,
        recipe=Recipe(muon=1e-2, adam=3e-3, decay=0.98),
    )
    torch.manual_seed(0)
    model = build_model("text_encoder", "unet", "autoencoder")
    style = Lora(rank=options.rank).inject(model)

    def measure() -> dict[str, float]:
        return Ink().values(model, style, MEASURED)

    adapt("lora_ink", model, style, style.own_layers, lesson, measure, options)
    style.half().save(WEIGHTS / "lora_ink.safetensors")


if __name__ == "__main__":
    main()
