"""Draws `style.png`, the picture in the README: prompts alone, in one style, and in a given one.

python plugins/stylealigned/picture/sheet.py
"""

from pathlib import Path
from typing import Any, Final

import refiners
from PIL import Image

from refiners_core import Condition

PROMPTS: Final = ["a large yellow star on a blue background", "a large heart", "a large circle"]
OPTIONS: Final[dict[str, Any]] = {"seed": 7, "steps": 30, "progress": False}


def main() -> None:
    """Writes the sheet beside the README."""
    model = refiners.load_model("playground")
    given = model.generate("a large green ring on a red background", **{**OPTIONS, "seed": 3})
    rows = [model.generate(PROMPTS, **OPTIONS)]
    with refiners.load_adapter("style-aligned", shift=1.0).on(model) as style:
        rows.append(model.generate(PROMPTS, conditions={style: Condition(end=0.7)}, **OPTIONS))
    described = ["a large green ring on a red background", *PROMPTS[1:]]
    with refiners.load_adapter("style-aligned", shift=1.0, inversion_guidance=1.25).on(
        model
    ) as style:
        condition = {style: Condition(given, end=0.7)}
        rows.append(model.generate(described, conditions=condition, **OPTIONS))
    side = given.width
    sheet = Image.new("RGB", (len(PROMPTS) * (side + 2), len(rows) * (side + 2)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * (side + 2), y * (side + 2)))
    sheet.save(Path(__file__).parents[1] / "style.png", optimize=True)


if __name__ == "__main__":
    main()
