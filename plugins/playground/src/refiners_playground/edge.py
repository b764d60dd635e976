"""Lines where a picture changes, one pixel wide: what the edge ControlNet is steered by."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

THRESHOLD = 0.14
"""The least step of any colour channel (0...1) that counts as an edge."""


def edges(pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Marks with 1 the pixels where a picture in 0...1 changes most, with 0 all others.

    Slopes come from Sobel's kernel in the colour channel that changes most; a pixel is kept where
    its slope is greatest across the edge (Canny 1986, section 5), which leaves lines of one pixel.
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
    """Sobel's slopes to the right and downwards, scaled so that a sharp step of 1 has slope 1."""
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
    """Whether each pixel is steeper than its two neighbours along the slope's direction.

    Ties go to the first of the two, else an edge between two pixels would be two pixels wide.
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
    found: Float[Tensor, "batch 1 height width"],
    wanted: Float[Tensor, "batch 1 height width"],
    tolerance: int = 1,
) -> Float[Tensor, " batch"]:
    """The F1 score (0...1) between two maps of edges, forgiving `tolerance` pixels.

    Precision is the share of found pixels that have a wanted pixel near; recall is the converse.
    """
    side = 2 * tolerance + 1

    def near(lines: Tensor) -> Tensor:
        return max_pool2d(lines, side, stride=1, padding=tolerance)

    precision = (found * near(wanted)).sum((1, 2, 3)) / found.sum((1, 2, 3)).clamp(min=1)
    recall = (wanted * near(found)).sum((1, 2, 3)) / wanted.sum((1, 2, 3)).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-9)
