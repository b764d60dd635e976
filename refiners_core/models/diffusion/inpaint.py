"""Painting into a part of a picture: what is to stay, and how it does."""

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

BESIDE: Final = "inpaint.beside"
"""The context key of what an inpainting UNet sees beside the latents: mask and masked picture."""
STAYS: Final = "inpaint.stays"
"""The context key of what is put back after a step."""


@dataclass(frozen=True)
class Stays:
    """What is to stay of a picture."""

    mask: Float[Tensor, "mask_rows 1 latent_height latent_width"]
    """1 where it may change, 0 where it stays."""
    clean: Float[Tensor, "rows channels latent_height latent_width"]
    """Its latents."""
    noise: Float[Tensor, "rows channels latent_height latent_width"]
    """The noise that it is taken back to."""


class PutBack(Layer):
    """Puts what is to stay back after a step: with the noise of the next one, at last without any.

    Algorithm 1 of arXiv:2206.02779 (blended latent diffusion). Where the context has nothing under
    `inpaint.stays`, latents pass.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "count channels height width"]:
        stays: Stays | None = context.get(STAYS)
        if stays is None:
            return inputs[0]
        path, after = context["sampler"].path, context["step"] + 1
        is_last = after + 1 == len(path)  # where samplers as released may leave some noise
        known = stays.clean if is_last else path[after].add_noise(stays.clean, stays.noise)
        return known + stays.mask * (inputs[0] - known)


def mask_of(
    value: Any, image: Sequence[Tensor] | None, count: int, is_needed: bool
) -> list[Float[Tensor, "1 1 height width"]] | None:
    """Returns where a picture may change, or each of several, in 0...1: 1 where it may.

    Args:
        value: What `to_mask` takes; what is at least half white may change.
        image: The picture, pixels in 0...1.
        count: How many pictures are made.
        is_needed: Whether the model does nothing else.

    Raises:
        GenerationError: It is no mask, or there is no picture, or the model needs both.
    """
    if is_needed and (value is None or image is None):
        raise GenerationError(
            "this model paints into pictures; it needs one, and where it may change.",
            hint="Pass image= and mask=, or take a model that begins with noise alone.",
        )
    if value is None:
        return None
    if image is None:
        raise GenerationError(
            "mask says where an image may change, but there is none.",
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
    """Returns an image, in 0...1, that is grey where it may change, as networks were trained."""
    return torch.where(mask > 0.5, 0.5, image)


def beside(
    mask: Float[Tensor, "mask_rows 1 height width"],
    masked: Float[Tensor, "image_rows channels latent_height latent_width"],
) -> Float[Tensor, "rows more latent_height latent_width"]:
    """Returns what an inpainting UNet sees beside the latents: a mask, and the greyed image's."""
    rows = max(len(mask), len(masked))
    small = shrunk(mask, (masked.shape[-2], masked.shape[-1])).to(masked)
    return torch.cat([part.expand(rows, *part.shape[1:]) for part in (small, masked)], dim=1)
