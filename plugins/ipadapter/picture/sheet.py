"""Draws `prompts.png`, the picture in the README: what pictures make of a prompt on the playground.

python plugins/ipadapter/picture/sheet.py
"""

from pathlib import Path
from typing import Any, Final

import refiners
import torch
from refiners_playground.contact_sheet import contact_sheet
from refiners_playground.scene import Item, Scene, draw
from torch import Tensor

from refiners_core import Condition

FIRST: Final = Scene((Item("heart", "red", radius=0.5, x=-0.3),), background="yellow")
SECOND: Final = Scene((Item("ring", "cyan", radius=0.5, x=0.3),), background="purple")


def main() -> None:
    """Writes the sheet beside the README."""
    model = refiners.load_model("playground")
    adapter = refiners.load_adapter("ip-adapter", model)
    first, second = draw([FIRST]), draw([SECOND])
    left = torch.zeros(1, 1, 64, 64)
    left[..., :32] = 1

    def drawn(value: Any, scale: Any = 1.0, prompt: str = "") -> Tensor:
        conditions = {adapter: Condition(value, scale=scale)}
        options: Any = {"steps": 20, "output": "tensor", "progress": False}
        return model.generate(prompt, conditions=conditions, seed=3, **options)[0]

    both = {"picture": [[first, second]]}
    pictures = {
        "a": first[0],
        "b": second[0],
        "a star": drawn(None, prompt="a star"),
        "a star, a": drawn(first, 0.4, prompt="a star"),
        "a and b joined": drawn(both),
        "a left, b right": drawn({**both, "masks": [left, 1 - left]}),
        "a, not b": drawn({"picture": first, "negative": second}),
    }
    sheet = contact_sheet([(name, "", [pixels]) for name, pixels in pictures.items()])
    sheet.quantize(128).save(Path(__file__).parents[1] / "prompts.png", optimize=True)


if __name__ == "__main__":
    main()
