"""Pictures for tests: gradients, in which every pixel has its own colour."""

from pathlib import Path

import numpy as np
from PIL import Image


def gradient(width: int, height: int, blue: int = 0) -> Image.Image:
    """Returns a picture whose red is the column and whose green is the row."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, blue)], axis=2).astype(np.uint8))


def write_pictures(folder: Path, **sizes: tuple[int, int]) -> Path:
    """Writes a captioned picture for each name, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (width, height)) in enumerate(sizes.items()):
        gradient(width, height, number).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"picture {name}\n")
    return folder
