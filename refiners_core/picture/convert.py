"""Pictures and masks, in the forms in which users have them, as pixels."""

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
"""The shares of red, green and blue in how bright a colour is (ITU-R BT.601)."""


def to_pixels(
    picture: Any, size: tuple[int, int] | None = None
) -> Float[Tensor, "count 3 height width"]:
    """Returns pixels in 0...1, float32 on the CPU.

    Args:
        picture: A PIL image of any mode, upright as its EXIF says and on white where it is clear;
            an array (height, width, channels); a float tensor (3, height, width) or (count, 3,
            height, width) in 0...1; or a list of these. One channel is repeated to three.
        size: Height and width to resize to (bicubic, antialiased, clamped), each picture alone; as
            it is by default.

    Raises:
        ConditionError: It is no picture, its values lie outside 0...1, or there are pictures of
            several sizes and none is asked for.
    """
    rows = [_resized(row, size) for row in to_rows(picture)]
    if len(sizes := {tuple(row.shape[-2:]) for row in rows}) > 1:
        named = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise ConditionError(
            f"these are pictures of several sizes: {named}.",
            hint="Resize them to one: [it.resize((512, 512)) for it in pictures].",
        )
    return torch.cat(rows)


def to_rows(picture: Any) -> list[Float[Tensor, "1 3 height width"]]:
    """Returns the pixels of one picture or several, each of its own size.

    Args:
        picture: What `to_pixels` takes.

    Raises:
        ConditionError: It is no picture, or its values lie outside 0...1.
    """
    return _rows(picture, WHITE)


def to_mask(
    mask: Any, size: tuple[int, int] | None = None
) -> Float[Tensor, "count 1 height width"]:
    """Returns how bright a mask is in 0...1, float32 on the CPU.

    Args:
        mask: What `to_pixels` takes, or a tensor (height, width). Where it is clear, it is black.
        size: Height and width. A place of a smaller mask is as bright as the area that it covers.

    Raises:
        ConditionError: It is not a mask, or there are masks of several sizes and none is asked for.
    """
    rows = [_fitted(row, size) for row in to_mask_rows(mask)]
    if len({tuple(row.shape[-2:]) for row in rows}) > 1:
        raise ConditionError(
            "these are masks of several sizes.",
            hint="Resize them to one: [it.resize((512, 512)) for it in masks].",
        )
    return torch.cat(rows)


def to_mask_rows(mask: Any) -> list[Float[Tensor, "1 1 height width"]]:
    """Returns how bright one mask or several are, each of its own size.

    Raises:
        ConditionError: It is not a mask.
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
    """Returns a mask of another height and width that is nothing but 0 and 1.

    A place is 1 if at least half of the area that it covers is.
    """
    return (_fitted(mask, size) >= 0.5).to(torch.float32)


def to_images(pixels: Float[Tensor, "count 3 height width"]) -> list[Image.Image]:
    """Returns PIL images of pixels in 0...1; values outside are clamped."""
    levels = (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in levels]


def _rows(picture: Any, paper: float) -> list[Tensor]:
    if isinstance(picture, list | tuple) and picture:
        return [row for item in picture for row in _rows(item, paper)]
    if isinstance(picture, Image.Image | np.ndarray):
        pixels = _of_raster(picture, paper)
    elif isinstance(picture, Tensor) and picture.is_floating_point() and picture.ndim in (3, 4):
        pixels = (picture if picture.ndim == 4 else picture[None]).detach().float().cpu()
    else:
        raise ConditionError(
            f"{_described(picture)} is no picture.",
            hint="Pass a PIL image, or a float tensor (3, height, width) with values in 0...1"
            + ("; of bytes, tensor / 255." if isinstance(picture, Tensor) else "."),
        )
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    is_whole = pixels.shape[1] == 3 and pixels.numel() > 0
    if not is_whole or not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise ConditionError(
            f"{_described(picture)} is no picture: it needs 3 channels with values in 0...1.",
            hint="Divide bytes by 255; for values in -1...1 take (x + 1) / 2.",
        )
    return list(pixels.split(1))


def _of_raster(picture: Any, paper: float) -> Tensor:
    try:
        is_image = isinstance(picture, Image.Image)
        levels = levels_of(picture, paper) if is_image else levels_of_array(picture, paper)
    except ValueError as error:
        raise ConditionError(
            f"{_described(picture)} is no picture: {error}.",
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
    return f"a value of type {type(value).__name__}"
