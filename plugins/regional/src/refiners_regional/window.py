"""The windows that cover a picture, and the weights of predictions in them."""

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.diffusion import Window

VARIANCE = 0.01
"""The variance of Gaussian weights, in squares of the side of a window."""


def windows_of(
    size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int], *, is_circular: bool
) -> tuple[Window, ...]:
    """Returns the windows that cover latents, row by row.

    Where the stride does not lead to the edge, one more window ends there.

    Args:
        size: Height and width of the latents.
        window: Height and width of a window; it is cut to the size of the latents.
        stride: The distance of windows below one another and beside one another.
        is_circular: Whether windows wrap around from the right edge to the left one.
    """
    height, width = min(window[0], size[0]), min(window[1], size[1])
    tops = _starts(size[0], height, stride[0])
    wraps = is_circular and size[1] > width
    lefts = range(0, size[1], stride[1]) if wraps else _starts(size[1], width, stride[1])
    return tuple([Window(top, left, height, width) for top in tops for left in lefts])


def uniform(height: int, width: int) -> Float[Tensor, "height width"]:
    """Returns the weights of MultiDiffusion: each prediction counts as much."""
    return torch.ones(height, width, dtype=torch.float32, device="cpu")


def gaussian(height: int, width: int) -> Float[Tensor, "height width"]:
    """Returns the weights of Mixture of Diffusers: a Gaussian around the middle of the window
    (arXiv:2302.02412, section 3)."""

    def line(length: int) -> Tensor:
        x = torch.arange(length, dtype=torch.float32, device="cpu") - (length - 1) / 2
        return torch.exp(-((x / length) ** 2) / (2 * VARIANCE))

    return torch.outer(line(height), line(width))


def _starts(length: int, window: int, stride: int) -> list[int]:
    last = length - window
    return sorted({*range(0, last, stride), last})
