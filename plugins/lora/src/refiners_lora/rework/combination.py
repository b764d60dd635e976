"""Ways to combine several changes of one weight: the sum, TIES and DARE."""

from collections.abc import Sequence

import torch
from torch import Tensor


def ties(matrices: Sequence[Tensor], strengths: Sequence[float], density: float) -> Tensor:
    """Trims each change, elects a sign for each number, and averages those that have it (TIES).

    arXiv:2306.01708, section 4.2, for the matrix of one layer. The signs are elected before the
    strengths apply, as in PEFT, so a strength counts in the average alone.

    Args:
        matrices: The changes, of one shape.
        strengths: The strength of each.
        density: The share of numbers that are kept, those of the greatest magnitude.
    """
    trimmed = torch.stack([_trimmed(matrix, density) for matrix in matrices])
    elected = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agrees = trimmed.sign() == elected
    weights = torch.tensor(strengths).view(-1, *(1 for _ in matrices[0].shape))
    return (trimmed * weights * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def dare(
    matrices: Sequence[Tensor],
    strengths: Sequence[float],
    density: float,
    generator: torch.Generator,
) -> Tensor:
    """Drops numbers of each change at random, rescales the others, and adds up (DARE).

    arXiv:2311.03099, section 3.2, for the matrix of one layer.

    Args:
        matrices: The changes, of one shape.
        strengths: The strength of each.
        density: The probability that a number is kept.
        generator: The source of randomness; one number is drawn for each number of each change.
    """
    total = torch.zeros_like(matrices[0])
    for matrix, strength in zip(matrices, strengths, strict=True):
        is_kept = torch.rand(matrix.shape, generator=generator) < density
        total += matrix * is_kept * (strength / density)
    return total


def _trimmed(matrix: Tensor, density: float) -> Tensor:
    count = int(density * matrix.numel())
    flat = matrix.flatten()
    kept = flat.abs().topk(count).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(matrix)
