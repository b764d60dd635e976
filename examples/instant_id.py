"""
InstantID
=========

An image prompt of a face, and a ControlNet on its keypoints that reads the face's tokens where
others read the text (arXiv:2401.07519, section 3). Its condition has two values, by name.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from controlnet import ControlNet
from ip_adapter import ImagePrompt
from torch import Tensor

from refiners_core import Edit


class InstantId(ImagePrompt):
    """Combines an image prompt and a ControlNet under one key (arXiv:2401.07519, section 3)."""

    inputs: ClassVar[tuple[str, ...]] = ("face", "keypoints")

    def build(self, model: Any, source: Any) -> None:
        super().build(model, source)
        # One key for both halves, so that they see one scale and one set of tokens.
        self.control = ControlNet(key=self.key, reads=self.context_key("tokens"))
        self.control.build(model, None)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        return (*super().edits(model), *self.control.edits(model))

    def encode(self, value: Mapping[str, Tensor], request: Any) -> dict[str, dict[str, Tensor]]:
        face = super().encode(value["face"], request)
        return face | self.control.encode(value["keypoints"], request)


# %%
# A missing input is an error before any network runs
# ---------------------------------------------------

if __name__ == "__main__":
    import torch

    from refiners_core.errors import ConditionError
    from refiners_core.testing import tiny_model

    model = tiny_model()
    adapter = InstantId(key="instantid").inject(model)
    face, keypoints = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    options = {"steps": 2, "seed": 7, "progress": False}
    try:
        model.generate("a portrait", conditions={adapter: {"face": face}}, **options)
    except ConditionError as error:
        print(error)
    both = {"face": face, "keypoints": keypoints}
    model.generate("a portrait", conditions={adapter: both}, **options)
