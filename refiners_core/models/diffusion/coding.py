"""The images of a generation on their way in and out, as adapters of the autoencoder see them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.device import moved
from refiners_core.models.diffusion.components import DiffusionComponents
from refiners_core.models.diffusion.conditioning import AdapterCondition, scales_of
from refiners_core.models.diffusion.denoise import COND, branch_rows
from refiners_core.models.diffusion.request import GenerationRequest
from refiners_core.surgery.plan import worn_at
from refiners_core.tree.context import Context

Code = Callable[[Tensor, Context], Tensor]
"""Encodes or decodes rows of images."""


@dataclass(frozen=True)
class ImageCoder:
    """Encodes and decodes the images of one generation.

    Adapters of the autoencoder find in the context their scales and, in one row or one for each
    image, the values of `cond` that they encoded.
    """

    model: DiffusionComponents
    request: GenerationRequest
    conditions: Sequence[AdapterCondition]
    """The adapters that act at some step, encoded."""
    offload: torch.device | None
    """The device of the autoencoder while it works; None leaves it in place."""

    def encode(
        self, pixels: Float[Tensor, "rows 3 height width"]
    ) -> Float[Tensor, "rows channels latent_height latent_width"]:
        """Returns the mean latents of images in 0...1, in one row or one for each image."""
        if self._differs and len(pixels) == 1:
            return self._one_by_one(self.model.encode, [pixels] * self.request.count)
        return self._coded(self.model.encode, pixels)

    def decode(
        self, latents: Float[Tensor, "rows channels latent_height latent_width"]
    ) -> Float[Tensor, "rows image_channels height width"]:
        """Returns the pixels of latents, in 0...1."""
        return self._coded(self.model.decode, latents)

    @property
    def _differs(self) -> bool:
        """Whether an adapter of the autoencoder has scales or values by image."""
        acting = worn_at(self.model, "autoencoder")
        conditions = [item for item in self.conditions if item.adapter in acting]
        scales = scales_of(conditions, self.request)
        return len(scales.pictures_alike("autoencoder", self.request.count)) > 1 or any(
            len(tensors[COND]) > 1 for item in conditions for tensors in item.conditioning.values()
        )

    def _coded(self, code: Code, rows: Tensor) -> Tensor:
        if self.model.autoencoder.tiling is not None and self._differs:
            return self._one_by_one(code, rows.split(1))  # a tile has the rows of one image
        with moved(self.model.autoencoder, self.offload):
            return code(rows, self._context(len(rows)))

    def _one_by_one(self, code: Code, rows: Sequence[Tensor]) -> Tensor:
        with moved(self.model.autoencoder, self.offload):
            return torch.cat([code(row, self._context(1, i)) for i, row in enumerate(rows)])

    def _context(self, count: int, image: int | None = None) -> Context:
        values: dict[str, Tensor] = {}
        for item in self.conditions:
            for key, tensors in item.conditioning.items():
                chosen = {
                    name: part if image is None or len(part) == 1 else part[image : image + 1]
                    for name, part in tensors.items()
                }
                if len(chosen[COND]) in (1, count):  # otherwise no adapter here reads it
                    values[key] = branch_rows(key, chosen, (COND,), count)
        scales = scales_of(self.conditions, self.request).outside(image)
        return scales.context({**values, "branches": (COND,)})
