"""Images and masks as tensors: from files, arrays and tensors, upright, at every bit depth."""

from refiners_core.picture.convert import (
    shrunk,
    to_images,
    to_mask,
    to_mask_rows,
    to_pixels,
    to_rows,
)

__all__ = ["shrunk", "to_images", "to_mask", "to_mask_rows", "to_pixels", "to_rows"]
