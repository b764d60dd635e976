"""Pictures that lose detail or colour: blurred, coarse, in squares, shuffled, grey."""

from typing import Any

import cv2
import numpy as np
from PIL import Image

from refiners_preprocessors.picture import Size, number, to_bytes, whole


def blur(picture: Any, /, *, sigma: float = 9.0, size: Size | None = None) -> Image.Image:
    """Returns a blurred picture.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        sigma: The standard deviation of the Gaussian, in 0.3...200 pixels.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or `sigma` is out of range.
    """
    sigma = number("sigma", sigma, 0.3, 200, 9)
    return Image.fromarray(cv2.GaussianBlur(to_bytes(picture, size), (0, 0), sigma))


def grey(picture: Any, /, *, size: Size | None = None) -> Image.Image:
    """Returns the picture in grey: the luma of ITU-R BT.601.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or the size is not one.
    """
    return Image.fromarray(cv2.cvtColor(to_bytes(picture, size), cv2.COLOR_RGB2GRAY))


def tile(picture: Any, /, *, factor: int = 8, size: Size | None = None) -> Image.Image:
    """Returns a picture without the details that a smaller one would not have.

    It is averaged over squares and enlarged again, smoothly, as ControlNet 1.1 `tile` was trained.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        factor: The side of the squares in 1...1024 pixels; 1 changes nothing.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or `factor` is out of range.
    """
    factor = whole("factor", factor, 1, 1024, 8)
    levels = to_bytes(picture, size)
    if factor == 1:
        return Image.fromarray(levels)
    small = cv2.resize(levels, _divided(levels, factor), interpolation=cv2.INTER_AREA)
    return Image.fromarray(cv2.resize(small, _sides(levels), interpolation=cv2.INTER_CUBIC))


def colour_palette(picture: Any, /, *, cell: int = 64, size: Size | None = None) -> Image.Image:
    """Returns a picture in squares of one colour each, as T2I-Adapter `color` was trained.

    It is sampled (bicubic) to a pixel per square, and each pixel is enlarged to a square.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        cell: The side of the squares in 1...1024 pixels.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or `cell` is out of range.
    """
    levels = to_bytes(picture, size)
    cells = _divided(levels, whole("cell", cell, 1, 1024, 64))
    small = cv2.resize(levels, cells, interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(cv2.resize(small, _sides(levels), interpolation=cv2.INTER_NEAREST))


def shuffle(
    picture: Any, /, *, seed: int = 0, grain: int = 256, size: Size | None = None
) -> Image.Image:
    """Returns a picture whose parts flowed to other places; colours stay, composition is lost.

    Each pixel is read from where a smooth random field points to, as for ControlNet 1.1 `shuffle`.

    Args:
        picture: A picture in any form that `refiners_core.picture.to_pixels` takes.
        seed: The seed of the field, from 0; the same seed gives the same picture.
        grain: The distance in 1...4096 pixels over which the field changes.
        size: Width and height of the result in pixels; by default those of the picture.

    Raises:
        ConditionError: The value is not one picture, or a number is out of range.
    """
    levels = to_bytes(picture, size)
    width, height = _sides(levels)
    grain = whole("grain", grain, 1, 4096, 256)
    generator = np.random.default_rng(whole("seed", seed, 0, 2**63, 0))
    fields = [_smooth_noise(generator, width, height, grain) for _ in range(2)]
    across, down = fields[0] * (width - 1), fields[1] * (height - 1)
    return Image.fromarray(cv2.remap(levels, across, down, cv2.INTER_LINEAR))


def _smooth_noise(generator: np.random.Generator, width: int, height: int, grain: int) -> Any:
    """Returns noise in 0...1, as float32 (height, width), from one random number per grain."""
    coarse = generator.random((height // grain + 2, width // grain + 2), np.float32)
    fine = cv2.resize(
        coarse, (width + 2 * grain, height + 2 * grain), interpolation=cv2.INTER_CUBIC
    )[grain : grain + height, grain : grain + width]
    low, high = float(fine.min()), float(fine.max())
    return (fine - low) / max(high - low, 1e-6)


def _sides(levels: Any) -> Size:
    height, width = levels.shape[:2]
    return width, height


def _divided(levels: Any, side: int) -> Size:
    """Returns how many squares of a side fit across and down; at least one each."""
    width, height = _sides(levels)
    return max(1, width // side), max(1, height // side)
