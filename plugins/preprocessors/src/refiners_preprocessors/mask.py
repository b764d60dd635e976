"""Masks for inpainting, from transparency or brightness."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from refiners_core.errors import ConditionError
from refiners_core.picture import to_mask
from refiners_preprocessors.picture import Size, number, sides, whole


def inpaint_mask(
    picture: Any, /, *, threshold: float = 0.5, grow: int = 0, size: Size | None = None
) -> Image.Image:
    """Returns the mask of the part that is to be filled in: white there, black elsewhere.

    That part is where a picture is transparent, or where one without transparent parts is bright.
    `controlnet-inpaint` sets the pixels of its picture to -1 under the mask.

    Args:
        picture: A picture or a mask in any form that `refiners_core.picture.to_mask` takes.
        threshold: The transparency or brightness, in 0...1, from which a pixel is filled in.
        grow: The margin in 0...512 pixels that is added around the part.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or a number is out of range.
    """
    threshold, grow = number("threshold", threshold, 0, 1, 0.5), whole("grow", grow, 0, 512, 0)
    share = _transparency(picture)
    mask = to_mask(picture if share is None else share, sides(size))
    if len(mask) != 1:
        raise ConditionError(
            f"a mask is made from one picture; {len(mask)} are given.",
            hint="Call it for each: [inpaint_mask(picture) for picture in pictures].",
        )
    part = (mask[0, 0].numpy() >= threshold).astype(np.uint8) * 255
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
    return Image.fromarray(cv2.dilate(part, around))


def _transparency(picture: Any) -> Float[np.ndarray, "height width"] | None:
    """Returns the transparency of each pixel in 0...1; None if the picture is opaque."""
    if isinstance(picture, np.ndarray) and picture.ndim == 3 and picture.shape[2] in (2, 4):
        alpha = to_mask(np.ascontiguousarray(picture[:, :, -1]))[0, 0].numpy()
    elif isinstance(picture, Image.Image) and picture.has_transparency_data:
        upright = ImageOps.exif_transpose(picture)
        alpha = np.asarray(upright.convert("RGBA").getchannel("A"), np.float32) / 255
    else:
        return None
    return 1 - alpha if alpha.min() < 1 else None
