"""Trains the palette adapter: about eight minutes on one core, after the base."""

from random import Random

import torch
from adapter_training import Lesson, adapt
from data import load_pictures
from loop import Recipe
from model import build_model
from refiners_palette.adapter import PaletteAdapter
from refiners_palette.palette import Palette
from refiners_playground.measure.palette import Colours
from refiners_playground.scene import Scene, draw
from run import WEIGHTS, arguments

MEASURED = 32
SIZES, SIZE_SHARES = (2, 3, 4), (0.7, 0.15, 0.15)
"""The sizes of palettes, and how often each is drawn."""
ALONE = 0.1
"""The share (0...1) of palettes of which only the heaviest colour is kept."""
EQUAL, SCALED = 0.25, 0.35
"""The shares (0...1) of palettes of two colours with equal weights, and with weights scaled at
random, since people do not measure shares."""


def as_written(palette: Palette, random: Random) -> Palette:
    """Returns the palette of a picture as somebody might write it."""
    if random.random() < ALONE:
        return Palette(palette[:1])
    how = random.random()
    if len(palette) == 2 and how < EQUAL:
        return Palette([name for name, _ in palette])
    if len(palette) == 2 and how < EQUAL + SCALED:
        return Palette([(name, share * 3 ** random.uniform(-1, 1)) for name, share in palette])
    return palette


def main() -> None:
    """Trains, measures on held-out scenes with prompts without colours, writes fp16 weights."""
    options = arguments(
        __doc__ or "", steps=600, batch=24, canonical=6000, placed=6000, measure_every=300
    )
    random = Random(5)

    def palettes(scenes: list[Scene]) -> list[Palette]:
        sizes = random.choices(SIZES, SIZE_SHARES, k=len(scenes))
        made = [Palette.of(pixels, size) for pixels, size in zip(draw(scenes), sizes, strict=True)]
        return [as_written(palette, random) for palette in made]

    lesson = Lesson(
        pictures=[
            (0.5, load_pictures("canonical", options.canonical)),
            (0.5, load_pictures("placed", options.placed)),
        ],
        look=palettes,
        text_dropped=0.3,
        condition_dropped=0.1,
        recipe=Recipe(muon=2e-3, adam=1e-3, decay=0.99),
    )
    torch.manual_seed(0)
    model = build_model("text_encoder", "unet", "autoencoder")
    adapter = PaletteAdapter(name="palette").inject(model)

    def measure() -> dict[str, float]:
        return Colours().values(model, adapter, MEASURED)

    adapt("palette", model, adapter, adapter.parts, lesson, measure, options)
    adapter.half().save(WEIGHTS / "palette.safetensors")


if __name__ == "__main__":
    main()
