"""Draws `palettes.png`, the picture in the README: one prompt in several palettes.

python plugins/palette/picture/sheet.py
"""

from pathlib import Path
from typing import Final

import refiners
from PIL import Image, ImageDraw
from refiners_palette.palette import Palette

SIDE: Final = 160
BAR: Final = 20
PROMPT: Final = "a large heart"
PALETTES: Final = (
    Palette([("#db2424", 1), ("#f5f5f5", 2)]),
    Palette([("#f5f5f5", 1), ("#db2424", 2)]),
    Palette([("#faE033", 1), ("#264dd9", 2)]),
    Palette([("#7a2e9e", 1), ("#33ccdb", 2)]),
    Palette([("#121217", 1), ("#f799c2", 2)]),
)


def main() -> None:
    """Writes the sheet beside the README."""
    model = refiners.load_model("playground")
    adapter = refiners.load_adapter("palette", model)
    sheet = Image.new("RGB", (SIDE * len(PALETTES), SIDE + BAR), "white")
    pen = ImageDraw.Draw(sheet)
    for i, palette in enumerate(PALETTES):
        picture = model.generate(PROMPT, conditions={adapter: palette}, seed=7, progress=False)
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (i * SIDE, BAR))
        left = i * SIDE
        for name, share in palette:
            pen.rectangle((left, 0, left + SIDE * share, BAR - 4), fill=name)
            left += SIDE * share
    sheet.quantize(128).save(Path(__file__).parents[1] / "palettes.png", optimize=True)


if __name__ == "__main__":
    main()
