"""Converts images and masks, in the forms in which users have them, to tensors."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from refiners_core.errors import ConditionError
from refiners_core.picture.raster import BLACK, WHITE, levels_of, levels_of_array

_GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in luma (ITU-R BT.601)."""


def to_pixels(
    picture: Any, size: tuple[int, int] | None = None, *, background: float = WHITE
) -> Float[Tensor, "count 3 height width"]:
    """Returns pixels in 0...1, float32 on the CPU.

    Args:
        picture: A PIL image of any mode, turned upright by its EXIF and laid on a background where
            it is transparent; an array (height, width, channels); a float tensor (3, height, width)
            or (count, 3, height, width) in 0...1; or a list of these. One channel is repeated to
            three.
        size: Height and width to resize each image to (bicubic, antialiased, clamped); by default
            images keep their size.
        background: The level of grey behind transparent parts, in 0...1; white by default.

    Raises:
        ConditionError: `picture` is not an image, its values are outside 0...1, or the images have
            several sizes and `size` is None.
    """
    rows = [_resized(row, size) for row in _rows(picture, background)]
    if len(sizes := {tuple(row.shape[-2:]) for row in rows}) > 1:
        named = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise ConditionError(
            f"the images have several sizes: {named}.",
            hint="Resize them to one size: [image.resize((512, 512)) for image in images].",
        )
    return torch.cat(rows)


def to_rows(picture: Any) -> list[Float[Tensor, "1 3 height width"]]:
    """Returns the pixels of one image or several, in 0...1, each in its size.

    Args:
        picture: One image or several, as for `to_pixels`.

    Raises:
        ConditionError: `picture` is not an image, or its values are outside 0...1.
    """
    return _rows(picture, WHITE)


def to_mask(
    mask: Any, size: tuple[int, int] | None = None
) -> Float[Tensor, "count 1 height width"]:
    """Returns the brightness of a mask in 0...1, float32 on the CPU.

    Args:
        mask: One mask or several, as for `to_pixels`, or a tensor (height, width); transparent
            parts are black.
        size: Height and width to resize to; shrinking averages areas. By default masks keep their
            size.

    Raises:
        ConditionError: `mask` is not a mask, or the masks have several sizes and `size` is None.
    """
    rows = [_fitted(row, size) for row in to_mask_rows(mask)]
    if len({tuple(row.shape[-2:]) for row in rows}) > 1:
        raise ConditionError(
            "the masks have several sizes.",
            hint="Resize them to one size: [mask.resize((512, 512)) for mask in masks].",
        )
    return torch.cat(rows)


def to_mask_rows(mask: Any) -> list[Float[Tensor, "1 1 height width"]]:
    """Returns the brightness of one mask or several, in 0...1, each in its size.

    Args:
        mask: One mask or several, as for `to_mask`.

    Raises:
        ConditionError: `mask` is not a mask.
    """
    if isinstance(mask, Tensor):
        mask = mask.float() if mask.dtype == torch.bool else mask
        mask = mask[None] if mask.ndim == 2 else mask
    rows = _rows(mask, BLACK)
    shares = torch.tensor(_GREY, dtype=torch.float32, device="cpu").view(1, 3, 1, 1)
    return [
        row[:, :1] if _is_grey(row) else (row * shares).sum(1, keepdim=True).clamp(0, 1)
        for row in rows
    ]


def shrunk(
    mask: Float[Tensor, "rows 1 height width"], size: tuple[int, int]
) -> Float[Tensor, "rows 1 new_height new_width"]:
    """Returns a mask of 0 and 1 in another size.

    A pixel is 1 if the average of the area that it covers is at least 0.5.

    Args:
        mask: A mask in 0...1.
        size: The new height and width.
    """
    return (_fitted(mask, size) >= 0.5).to(torch.float32)


def to_images(pixels: Float[Tensor, "count 3 height width"]) -> list[Image.Image]:
    """Returns PIL images of pixels in 0...1; values outside this range are clamped."""
    levels = (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in levels]


def _rows(picture: Any, paper: float) -> list[Tensor]:
    if isinstance(picture, list | tuple) and picture:
        return [row for item in picture for row in _rows(item, paper)]
    if isinstance(picture, Image.Image | np.ndarray):
        pixels = _of_raster(picture, paper)
    elif isinstance(picture, Tensor) and picture.is_floating_point() and picture.ndim in (3, 4):
        pixels = (picture if picture.ndim == 4 else picture[None]).detach().float().cpu()
    else:
        tensor = picture if isinstance(picture, Tensor) else None
        dtype = None if tensor is None or tensor.is_floating_point() else tensor.dtype
        remedy = "tensor.float()" if dtype == torch.bool else "tensor / 255"
        raise ConditionError(
            f"{_described(picture)} is not an image.",
            hint="Pass a PIL image, or a float tensor (3, height, width) with values in 0...1"
            + (f"; for {dtype}, {remedy}." if dtype else "."),
        )
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    if (fault := _fault_of(pixels)) is not None:
        raise ConditionError(f"{_described(picture)} is not an image: {fault[0]}.", hint=fault[1])
    return list(pixels.split(1))


def _fault_of(pixels: Float[Tensor, "count channels height width"]) -> tuple[str, str] | None:
    """Returns why pixels are not those of an image, and what to pass; None if they are."""
    if pixels.numel() == 0:
        return "it has no pixels", "Pass an image of at least 1 x 1 pixel."
    if pixels.shape[1] != 3:
        return (
            f"it has {pixels.shape[1]} channels, and needs 3 with values in 0...1",
            "Pass (3, height, width); several images are (count, 3, height, width), grey ones and "
            "masks (count, 1, height, width).",
        )
    if not pixels.isfinite().all():
        return (
            "it has values that are not finite, and needs 3 channels with values in 0...1",
            "Replace them, for example with torch.nan_to_num(tensor) or numpy.nan_to_num(array).",
        )
    if not bool(((pixels >= 0) & (pixels <= 1)).all()):
        return (
            "it needs 3 channels with values in 0...1",
            "Divide bytes by 255; for values in -1...1 pass (x + 1) / 2.",
        )
    return None


def _of_raster(picture: Any, paper: float) -> Tensor:
    try:
        is_image = isinstance(picture, Image.Image)
        levels = levels_of(picture, paper) if is_image else levels_of_array(picture, paper)
    except ValueError as error:
        raise ConditionError(
            f"{_described(picture)} is not an image: {error}.",
            hint='Pass picture.convert("RGB").'
            if isinstance(picture, Image.Image)
            else "Pass array.transpose(1, 2, 0) if channels come first, a list for several, or "
            "array.astype(numpy.float32) in 0...1.",
        ) from error
    return torch.from_numpy(np.ascontiguousarray(levels)).permute(2, 0, 1)[None]


def _resized(pixels: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)


def _fitted(mask: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(mask.shape[-2:]) == size:
        return mask
    height, width = mask.shape[-2:]
    mask = F.interpolate(mask, (min(height, size[0]), min(width, size[1])), mode="area")
    return F.interpolate(mask, size, mode="bilinear")


def _is_grey(row: Tensor) -> bool:
    return bool((row[:, :1] == row).all())


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    if isinstance(value, Image.Image):
        return f"an image of mode {value.mode}, {value.width} x {value.height}"
    if value in ([], ()):
        return f"an empty {type(value).__name__}"
    return f"a value of type {type(value).__name__}"
