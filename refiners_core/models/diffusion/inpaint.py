"""Inpainting: the part of an image that is kept, and how it is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ConditionError, GenerationError
from refiners_core.picture import shrunk, to_mask_rows
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

MASKED_IMAGE: Final = "inpaint.masked_image"
"""The context key of the channels that an inpainting UNet reads: mask and masked image."""
KEPT: Final = "inpaint.kept"
"""The context key of the image that is put back after each step, a `Kept`."""


@dataclass(frozen=True)
class Kept:
    """An image of which a part is kept."""

    mask: Float[Tensor, "mask_rows 1 latent_height latent_width"]
    """1 where the image may change, 0 where it is kept."""
    clean: Float[Tensor, "rows channels latent_height latent_width"]
    """The latents of the image."""
    noise: Float[Tensor, "rows channels latent_height latent_width"]
    """The noise that is added to them."""


class PutBack(Layer):
    """Puts the kept part back after a step, at the noise level of the next one.

    Algorithm 1 of arXiv:2206.02779 (blended latent diffusion). Without `inpaint.kept` in the
    context it returns its input.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        kept: Kept | None = context.get(KEPT)
        if kept is None:
            return inputs[0]
        path, after = context["sampler"].path, context["step"] + 1
        is_last = after + 1 == len(path)  # where samplers as released may leave some noise
        known = kept.clean if is_last else path[after].add_noise(kept.clean, kept.noise)
        return known + kept.mask * (inputs[0] - known)


def mask_rows(
    value: Any, image: Sequence[Tensor] | None, count: int, is_needed: bool
) -> list[Float[Tensor, "1 1 height width"]] | None:
    """Returns one mask for all images, or one for each, in 0...1: 1 where an image may change.

    Args:
        value: The mask as `to_mask` takes it: at least half white may change.
        image: The initial image, pixels in 0...1.
        count: The number of images to generate.
        is_needed: Whether the model was trained to inpaint, and does nothing else.

    Raises:
        GenerationError: The value is not a mask, the image is missing, or an inpainting model lacks
            one of them.
    """
    if is_needed and (value is None or image is None):
        raise GenerationError(
            "this is an inpainting model; it needs an image, and a mask of where it may change.",
            hint="Pass image= and mask=, or load a model that begins with noise alone.",
        )
    if value is None:
        return None
    if image is None:
        raise GenerationError(
            "mask marks where an image may change, but image is missing.",
            hint="Pass image= as well; Condition(value, mask=...) limits an adapter.",
        )
    try:
        mask = to_mask_rows(value)
    except ConditionError as error:
        raise GenerationError(
            f"mask: {error.message}",
            hint="Pass a black and white picture: white is where the image may change.",
        ) from error
    if len(mask) not in (1, count):
        raise GenerationError(
            f"there are {len(mask)} masks for {count} pictures.", hint="Pass one, or one for each."
        )
    return mask


def greyed(
    image: Float[Tensor, "image_rows 3 height width"],
    mask: Float[Tensor, "mask_rows 1 height width"],
) -> Float[Tensor, "rows 3 height width"]:
    """Returns an image, in 0...1, that is grey where it may change, as such UNets were trained."""
    return torch.where(mask > 0.5, 0.5, image)


def inpainting_channels(
    mask: Float[Tensor, "mask_rows 1 height width"],
    masked: Float[Tensor, "image_rows channels latent_height latent_width"],
) -> Float[Tensor, "rows more latent_height latent_width"]:
    """Returns the channels that an inpainting UNet reads beside the latents.

    Args:
        mask: 1 where the image may change, 0 elsewhere.
        masked: The latents of the greyed image.
    """
    rows = max(len(mask), len(masked))
    small = shrunk(mask, (masked.shape[-2], masked.shape[-1])).to(masked)
    return torch.cat([part.expand(rows, *part.shape[1:]) for part in (small, masked)], dim=1)
