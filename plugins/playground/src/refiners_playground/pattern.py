"""The marks of fills and the shades of textures, which repeat across a picture."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

FILLS: tuple[str, ...] = ("plain", "striped", "dotted", "checked")
TEXTURES: tuple[str, ...] = ("plain", "wavy", "woven")
PERIOD = 8.0
"""The period of a fill in pixels of a picture 64 pixels wide; its marks are half as wide."""
WAVE = 20.0
"""The period of a texture in pixels of a picture 64 pixels wide."""


def marks(fills: Sequence[str], size: int, scale: float) -> Float[Tensor, "batch 1 size size"]:
    """Returns the marks of fills: 1 on a mark, 0 elsewhere.

    Args:
        fills: Names in `FILLS`.
        size: Width and height in pixels.
        scale: The size of a pixel in pixels of a picture 64 pixels wide.
    """
    line = (torch.arange(size) + 0.5) * scale / PERIOD % 1
    y, x = line.view(-1, 1), line.view(1, -1)
    half = torch.stack([(x < 0.5).expand(size, size), (y < 0.5).expand(size, size)])
    table = {
        "plain": torch.zeros(size, size),
        "striped": half[1].float(),
        "dotted": (torch.hypot(x - 0.5, y - 0.5) < 0.3).float(),
        "checked": (half[0] ^ half[1]).float(),
    }
    return torch.stack([table[fill] for fill in fills]).unsqueeze(1)


def shades(textures: Sequence[str], size: int, scale: float) -> Float[Tensor, "batch 1 size size"]:
    """Returns how much lighter (up to 1) or darker (down to -1) textures are at each pixel.

    Args:
        textures: Names in `TEXTURES`.
        size: Width and height in pixels.
        scale: The size of a pixel in pixels of a picture 64 pixels wide.
    """
    line = torch.arange(size) * (scale * 2 * math.pi / WAVE)
    y, x = line.view(-1, 1), line.view(1, -1)
    table = {"plain": torch.zeros(size, size), "wavy": (x + y).sin(), "woven": x.sin() * y.sin()}
    return torch.stack([table[texture] for texture in textures]).unsqueeze(1)
