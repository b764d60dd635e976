"""Draws `prompts.png`, the picture in the README: what pictures make of a prompt on the playground.

python plugins/ipadapter/picture/sheet.py
"""

from pathlib import Path
from typing import Any, Final

import refiners
import torch
from PIL import Image, ImageDraw
from refiners_playground.scene import Item, Scene, draw

from refiners_core import Condition
from refiners_core.picture import to_images

SHOWN: Final = 104
FIRST: Final = Scene((Item("heart", "red", radius=0.5, x=-0.3),), background="yellow")
SECOND: Final = Scene((Item("ring", "cyan", radius=0.5, x=0.3),), background="purple")


def main() -> None:
    """Writes the sheet beside the README."""
    model = refiners.load_model("playground")
    adapter = refiners.load_adapter("ip-adapter", model)
    first, second = draw([FIRST]), draw([SECOND])
    left = torch.zeros(1, 1, 64, 64)
    left[..., :32] = 1

    def drawn(value: Any, scale: Any = 1.0, prompt: str = "") -> Image.Image:
        conditions = {adapter: Condition(value, scale=scale)}
        return model.generate(prompt, conditions=conditions, seed=3, steps=20, progress=False)

    both = {"picture": [[first, second]]}
    pictures = {
        "a": to_images(first)[0],
        "b": to_images(second)[0],
        "a star": drawn(None, prompt="a star"),
        "a star, a": drawn(first, 0.4, prompt="a star"),
        "a and b joined": drawn(both),
        "a left, b right": drawn({**both, "masks": [left, 1 - left]}),
        "a, not b": drawn({"picture": first, "negative": second}),
    }
    columns, line = 7, 16
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * SHOWN, rows * (SHOWN + line)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (name, image) in enumerate(pictures.items()):
        x, y = index % columns * SHOWN, index // columns * (SHOWN + line)
        pen.text((x + 4, y + 2), name, fill="black")
        side = SHOWN - 4
        sheet.paste(image.resize((side, side), Image.Resampling.BICUBIC), (x, y + line))
    sheet.quantize(128).save(Path(__file__).parents[1] / "prompts.png", optimize=True)


if __name__ == "__main__":
    main()
