"""Contact sheets: pictures in columns under two lines of text."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from refiners_core.picture import to_images

ENLARGED = 3
GAP = 12
LINE = 16


Column = tuple[str, str, Sequence[Float[Tensor, "3 height width"]]]
"""A title, a second line, and pictures of one size in 0...1 from top to bottom."""


def contact_sheet(*bands: Sequence[Column]) -> Image.Image:
    """Returns one picture with bands below one another, each a row of columns.

    Args:
        bands: The columns of each band; all pictures have one size.
    """
    height, width = bands[0][0][2][0].shape[-2:]
    cell = (width * ENLARGED + GAP, height * ENLARGED + GAP)
    heights = [2 * LINE + GAP + cell[1] * max(len(column[2]) for column in band) for band in bands]
    sheet = Image.new("RGB", (cell[0] * max(map(len, bands)) + GAP, sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, columns in enumerate(bands):
        top = sum(heights[:i])
        for j, (title, note, pictures) in enumerate(columns):
            left = GAP + j * cell[0]
            pen.text((left, top + GAP // 2), title, fill="black")
            pen.text((left, top + GAP // 2 + LINE), note, fill="gray")
            for k, image in enumerate(to_images(torch.stack(list(pictures)))):
                size = (width * ENLARGED, height * ENLARGED)
                enlarged = image.resize(size, Image.Resampling.NEAREST)
                sheet.paste(enlarged, (left, top + GAP + 2 * LINE + k * cell[1]))
    return sheet
