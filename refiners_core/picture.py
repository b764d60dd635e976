"""What users call a picture, as pixels."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from refiners_core.errors import ConditionError


def to_pixels(
    picture: Any, size: tuple[int, int] | None = None
) -> Float[Tensor, "count 3 height width"]:
    """Returns pixels in 0...1, float32 on the CPU.

    Args:
        picture: A PIL image, a float tensor (3, height, width) or (count, 3, height, width) in
            0...1, or a list of these. One channel is repeated to three.
        size: Height and width to resize to (bicubic, antialiased, clamped); as it is by default.

    Raises:
        ConditionError: It is no picture, or its values lie outside 0...1.
    """
    if isinstance(picture, list | tuple) and picture:
        return torch.cat([to_pixels(one, size) for one in picture])
    if isinstance(picture, Image.Image):
        array = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        pixels = torch.from_numpy(array).permute(2, 0, 1)[None]
    elif isinstance(picture, Tensor) and picture.is_floating_point() and picture.ndim in (3, 4):
        pixels = (picture if picture.ndim == 4 else picture[None]).detach().float().cpu()
    else:
        raise ConditionError(
            f"{_described(picture)} is no picture.",
            hint="Pass a PIL image, or a float tensor (3, height, width) with values in 0...1.",
        )
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    if pixels.shape[1] != 3 or not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise ConditionError(
            f"{_described(picture)} is no picture: it needs 3 channels with values in 0...1.",
            hint="Divide bytes by 255; for values in -1...1 take (x + 1) / 2.",
        )
    if size is not None and tuple(pixels.shape[-2:]) != size:
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
    return pixels


def to_images(pixels: Float[Tensor, "count 3 height width"]) -> list[Image.Image]:
    """Returns PIL images of pixels in 0...1; values outside are clamped."""
    levels = (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in levels]


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    return f"a value of type {type(value).__name__}"
