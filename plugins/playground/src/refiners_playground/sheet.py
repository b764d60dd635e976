"""Pictures side by side, each under a line that says what it is."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from refiners_core.picture import to_images

ENLARGED = 3
GAP = 12
LINE = 16


def contact_sheet(
    columns: Sequence[tuple[str, str, Sequence[Float[Tensor, "3 height width"]]]],
) -> Image.Image:
    """Returns one picture of columns of pictures, each column under two lines of text.

    Args:
        columns: A title, a second line and pictures of one size in 0...1, from top to bottom.
    """
    height, width = columns[0][2][0].shape[-2:]
    rows = max(len(pictures) for _, _, pictures in columns)
    cell = (width * ENLARGED + GAP, height * ENLARGED + GAP)
    sheet = Image.new(
        "RGB", (cell[0] * len(columns) + GAP, cell[1] * rows + 2 * LINE + GAP), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for i, (title, note, pictures) in enumerate(columns):
        left = GAP + i * cell[0]
        pen.text((left, GAP // 2), title, fill="black")
        pen.text((left, GAP // 2 + LINE), note, fill="gray")
        for j, image in enumerate(to_images(torch.stack(list(pictures)))):
            enlarged = image.resize((width * ENLARGED, height * ENLARGED), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (left, GAP + 2 * LINE + j * cell[1]))
    return sheet
