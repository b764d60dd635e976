"""Edge maps, the condition of the playground's ControlNet: lines of one pixel."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

THRESHOLD = 0.14
"""The smallest step of a colour channel (0...1) that counts as an edge."""


def edges(pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Returns the edges of pictures in 0...1: 1 on an edge, 0 elsewhere.

    Slopes come from Sobel's kernel in the colour channel that changes most. A pixel is kept if its
    slope is the greatest across the edge (Canny 1986, section 5), which leaves lines of one pixel.
    """
    across, down = _slopes(pixels.float())
    strength = across.square() + down.square()
    channel = strength.argmax(1, keepdim=True)
    strength, dx, dy = (field.gather(1, channel).squeeze(1) for field in (strength, across, down))
    return (_is_crest(strength, dx, dy) & (strength >= THRESHOLD**2)).float().unsqueeze(1)


def _slopes(
    pixels: Float[Tensor, "batch channels height width"],
) -> tuple[
    Float[Tensor, "batch channels height width"], Float[Tensor, "batch channels height width"]
]:
    """Returns Sobel's slopes rightwards and downwards; a sharp step of 1 has slope 1."""
    bordered = pad(pixels, (1, 1, 1, 1), mode="replicate")
    left, middle, right = bordered[..., :-2], bordered[..., 1:-1], bordered[..., 2:]
    wide, tall = right - left, left + 2 * middle + right
    across = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    down = tall[..., 2:, :] - tall[..., :-2, :]
    return across / 4, down / 4


def _is_crest(
    strength: Float[Tensor, "batch height width"],
    dx: Float[Tensor, "batch height width"],
    dy: Float[Tensor, "batch height width"],
) -> Bool[Tensor, "batch height width"]:
    """Returns whether each pixel is steeper than its two neighbours along its slope.

    The first of two equal neighbours wins; otherwise an edge between two pixels would be two pixels
    wide.
    """
    around = pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[1:]

    def neighbour(right: int, down: int) -> Tensor:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    flat, steep = dy.abs() < 0.4142 * dx.abs(), dx.abs() < 0.4142 * dy.abs()
    falling = dx * dy >= 0
    crest = torch.zeros_like(strength, dtype=torch.bool)
    for chosen, (right, down) in (
        (flat, (1, 0)),
        (steep, (0, 1)),
        (~flat & ~steep & falling, (1, 1)),
        (~flat & ~steep & ~falling, (1, -1)),
    ):
        higher = strength > neighbour(-right, -down)
        crest |= chosen & higher & (strength >= neighbour(right, down))
    return crest


def edge_agreement(
    detected: Float[Tensor, "batch 1 height width"],
    expected: Float[Tensor, "batch 1 height width"],
    tolerance: int = 1,
) -> Float[Tensor, " batch"]:
    """Returns the F1 score (0...1) between two edge maps, with a tolerance in pixels.

    Precision is the share of detected pixels near an expected one; recall is the converse.
    """
    side = 2 * tolerance + 1

    def near(lines: Tensor) -> Tensor:
        return max_pool2d(lines, side, stride=1, padding=tolerance)

    precision = (detected * near(expected)).sum((1, 2, 3)) / detected.sum((1, 2, 3)).clamp(min=1)
    recall = (expected * near(detected)).sum((1, 2, 3)) / expected.sum((1, 2, 3)).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-9)
