"""Draws `reference.png`, the picture in the README: a reference, and pictures with and without it.

python plugins/reference/picture/sheet.py
"""

from pathlib import Path
from typing import Any, Final

import refiners
from PIL import Image

PROMPTS: Final = ["a large heart", "a large square"]
OPTIONS: Final[dict[str, Any]] = {"seed": 7, "steps": 30, "progress": False}
KINDS: Final[dict[str, dict[str, float]]] = {
    "reference-only": {},
    "reference-adain": {"norm_weight": 2.0},
}


def main() -> None:
    """Writes the sheet beside the README."""
    model = refiners.load_model("playground")
    seen = model.generate("a large yellow star on a blue background", **{**OPTIONS, "seed": 3})
    columns = [[seen], model.generate(PROMPTS, **OPTIONS)]
    for name, options in KINDS.items():
        with refiners.load_adapter(name, **options).on(model) as adapter:
            columns.append(model.generate(PROMPTS, conditions={adapter: seen}, **OPTIONS))
    side = seen.width + 2
    sheet = Image.new("RGB", (len(columns) * side, len(PROMPTS) * side), "white")
    for x, column in enumerate(columns):
        for y, image in enumerate(column):
            sheet.paste(image, (x * side, y * side))
    sheet.save(Path(__file__).parents[1] / "reference.png", optimize=True)


if __name__ == "__main__":
    main()
