"""The image that a step of a generation predicts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from refiners_core.picture import to_images


@dataclass(frozen=True)
class Preview:
    """The images that a step predicts; they are decoded when they are asked for."""

    step: int
    """The step, counted from 0."""
    clean: Float[Tensor, "count channels latent_height latent_width"]
    """The latents without the noise that the network predicts."""
    decode: Callable[[Tensor], Tensor]
    """Decodes latents to pixels in 0...1."""

    @torch.no_grad()
    def pixels(self) -> Float[Tensor, "count 3 height width"]:
        """Returns pixels in 0...1."""
        return self.decode(self.clean)

    def images(self) -> list[Image.Image]:
        """Returns PIL images."""
        return to_images(self.pixels())
