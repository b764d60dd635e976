"""Draws `maps.png`, the picture in the README: a scene, and what each preprocessor makes of it.

python plugins/preprocessors/picture/sheet.py
"""

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw
from refiners_preprocessors import (
    blur,
    canny,
    colour_palette,
    draw_keypoints,
    inpaint_mask,
    lineart,
    scribble,
    shuffle,
    soft_edge,
    tile,
)

SIDE: Final = 384
SHOWN: Final = 128
POSE: Final = np.array(
    [
        *((0.50, 0.18), (0.50, 0.30), (0.42, 0.31), (0.35, 0.42), (0.30, 0.30), (0.58, 0.31)),
        *((0.64, 0.44), (0.66, 0.57), (0.46, 0.56), (0.45, 0.74), (0.42, 0.92), (0.54, 0.56)),
        *((0.56, 0.74), (0.60, 0.92), (0.48, 0.16), (0.52, 0.16), (0.46, 0.17), (0.54, 0.17)),
    ]
)


def scene() -> Image.Image:
    """Returns a house in a landscape."""
    height = np.linspace(0, 1, SIDE)[:, None, None]
    sky = (1 - height) * np.array([70, 130, 200]) + height * np.array([240, 220, 190])
    picture = Image.fromarray(np.broadcast_to(sky, (SIDE, SIDE, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((270, 40, 340, 110), fill=(255, 230, 120))
    draw.polygon(
        [(0, 260), (110, 150), (230, 270), (384, 190), (384, 384), (0, 384)], fill="#4c7a4a"
    )
    draw.rectangle((120, 210, 260, 330), fill="#c9b08a")
    draw.polygon([(105, 210), (190, 140), (275, 210)], fill="#8c3b2e")
    draw.rectangle((175, 265, 210, 330), fill="#553322")
    draw.rectangle((135, 230, 165, 258), fill="#aad4ee", outline="black")
    draw.rectangle((220, 230, 248, 258), fill="#aad4ee", outline="black")
    draw.ellipse((295, 210, 365, 300), fill="#2f5d34")
    draw.rectangle((324, 295, 336, 345), fill="#553322")
    return picture


def main() -> None:
    """Writes the sheet beside the README."""
    picture = scene()
    cut = picture.convert("RGBA")
    ImageDraw.Draw(cut).ellipse((295, 210, 365, 300), fill=(0, 0, 0, 0))
    makers = (canny, soft_edge, lineart, scribble, blur, tile, colour_palette, shuffle)
    pictures = {"photo": picture, **{maker.__name__: maker(picture) for maker in makers}}
    pictures["inpaint_mask"] = inpaint_mask(cut)
    pictures["draw_keypoints"] = draw_keypoints(POSE, size=(SIDE, SIDE))
    columns, line = 4, 16
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * SHOWN, rows * (SHOWN + line)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, image) in enumerate(pictures.items()):
        x, y = index % columns * SHOWN, index // columns * (SHOWN + line)
        draw.text((x + 4, y + 2), name, fill="black")
        sheet.paste(
            image.convert("RGB").resize((SHOWN, SHOWN), Image.Resampling.LANCZOS), (x, y + line)
        )
    sheet.quantize(128).save(Path(__file__).parents[1] / "maps.png", optimize=True)


if __name__ == "__main__":
    main()
