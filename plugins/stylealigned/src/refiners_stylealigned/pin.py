"""The path of a given picture, which the first picture of a batch follows."""

from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Context, Layer


class Pin(Layer):
    """Replaces the latents of the first picture by those of a given one at the same noise level.

    Without a path in the context it returns its input.

    Args:
        path: The context key of the path, (1, levels, channels, height, width), noisiest first.
        is_after: Whether the latents are those after the step instead of those before it.
    """

    def __init__(self, path: str, is_after: bool) -> None:
        super().__init__()
        self.path: Final = path
        self.is_after: Final = is_after

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        latents: Tensor = inputs[0]
        if self.path not in context["conditions"]:
            return latents
        path: Tensor = context["conditions"][self.path]["cond"]
        latents = torch.cat([path[:1, context["step"] + self.is_after], latents[1:]])
        if not self.is_after:
            context["latents"] = latents
        return latents

    def extra_repr(self) -> str:
        return repr(self.path)
