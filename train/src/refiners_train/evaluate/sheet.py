"""A contact sheet: a row for each prompt, with the picture without and with the adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Final

from PIL import Image, ImageDraw, ImageFont

SIDE: Final = 192
"""The height in pixels that small pictures are enlarged to reach, by whole numbers."""
_GAP: Final = 12
_TEXT: Final = 220
"""The width of the column of prompts in pixels."""
_LINE: Final = 16


def contact_sheet(folders: Mapping[str, tuple[Path, Sequence[str]]]) -> Image.Image | None:
    """Returns one picture with a band for each trial: prompts, then without, then with.

    Args:
        folders: For each trial by its title, the folder with its pictures, and the prompts.

    Returns:
        An RGB image; None if no trial has pictures.
    """
    bands = [_band(title, *kept) for title, kept in folders.items() if kept[1]]
    if not bands:
        return None
    width, height = max(band.width for band in bands), sum(band.height for band in bands)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _band(title: str, folder: Path, prompts: Sequence[str]) -> Image.Image:
    columns = [c for c in ("without", "with") if (folder / f"{c}-0.png").exists()]
    rows = [[_enlarged(folder / f"{c}-{i}.png") for c in columns] for i in range(len(prompts))]
    cell = max(image.width for row in rows for image in row) + _GAP
    line = max(image.height for row in rows for image in row) + _GAP
    top = 2 * _LINE + _GAP
    band = Image.new(
        "RGB", (_TEXT + cell * len(columns) + 2 * _GAP, top + line * len(rows)), "white"
    )
    pen, font = ImageDraw.Draw(band), ImageFont.load_default(13)
    pen.text((_GAP, _GAP // 2), title, fill="black", font=font)
    for j, column in enumerate(columns):
        heading = column if len(columns) > 1 else ""
        pen.text((_TEXT + _GAP + j * cell, _GAP // 2 + _LINE), heading, fill="gray", font=font)
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        words = "\n".join(wrap(prompt or "(no words)", 30))
        pen.multiline_text((_GAP, top + i * line), words, fill="black", font=font)
        for j, image in enumerate(row):
            band.paste(image, (_TEXT + _GAP + j * cell, top + i * line))
    return band


def _enlarged(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGB")
    factor = max(1, -(-SIDE // max(image.height, 1)))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
