"""The aligned crop of a face, in which eyes, nose and mouth lie at fixed points."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

TEMPLATE: Final = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""The points of a face in a crop of 112 pixels, as ArcFace aligns them (arXiv:1801.07698)."""


def aligned_crop(
    pixels: Float[Tensor, "3 height width"], keypoints: Float[Tensor, "5 2"], size: int
) -> Float[Tensor, "3 size size"]:
    """Returns the crop of a face as insightface aligns it (bilinear, black outside the picture).

    Args:
        pixels: A picture in 0...1.
        keypoints: Coordinates x and y of left eye, right eye, nose, left and right corner of the
            mouth, in pixels.
        size: Height and width of the crop in pixels. Multiples of 112 are cropped tightly, other
            sizes, in parts of 128, with a margin at both sides.
    """
    is_tight = size % 112 == 0
    unit = size / (112 if is_tight else 128)
    margin = 0.0 if is_tight else 8 * unit
    wanted = [(x * unit + margin, y * unit) for x, y in TEMPLATE]
    points = keypoints.float().cpu()
    matrix, offset = _similarity(points, points.new_tensor(wanted))
    inverse = torch.linalg.inv(matrix)
    side = torch.arange(size, device=points.device, dtype=points.dtype)
    y, x = torch.meshgrid(side, side, indexing="ij")
    places = (torch.stack([x, y], dim=-1) - offset) @ inverse.T
    height, width = pixels.shape[-2:]
    largest = points.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = places / largest * 2 - 1
    return grid_sample(pixels[None].float().cpu(), grid[None], align_corners=True)[0]


def _similarity(
    points: Float[Tensor, "5 2"], wanted: Float[Tensor, "5 2"]
) -> tuple[Float[Tensor, "2 2"], Float[Tensor, "2"]]:
    """Returns the rotation with scale, and the shift, that move points nearest to wanted ones.

    The least-squares solution of Umeyama, "Least-squares estimation of transformation parameters
    between two point patterns", equations 40 to 43.
    """
    mean, goal = points.mean(0), wanted.mean(0)
    centred = points - mean
    u, d, vt = torch.linalg.svd((wanted - goal).T @ centred / len(points))
    sign = torch.sign(torch.linalg.det(u) * torch.linalg.det(vt))
    signs = torch.stack([torch.ones_like(sign), sign])
    scale = (d * signs).sum() / centred.square().sum(1).mean()
    matrix = scale * (u * signs) @ vt
    return matrix, goal - matrix @ mean
