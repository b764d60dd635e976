"""The singular values of a matrix, and the best product of two factors of a rank."""

from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

from refiners_core.errors import AdapterError

_NOISE: Final = 1e-6
"""The share of the greatest singular value below which others are noise of float32."""


class Spectrum(NamedTuple):
    """A singular value decomposition in float64, with the values that are noise left out."""

    left: Tensor
    """(out, rank), with orthonormal columns."""
    values: Tensor
    """(rank,), in descending order, above 0."""
    right: Tensor
    """(rank, in), with orthonormal rows."""

    @classmethod
    def of(cls, matrix: Tensor) -> Self:
        """Decomposes a matrix.

        It takes the eigenvectors of the smaller Gram matrix: half the time of a decomposition of a
        square matrix, a seventh of that of a wide one. Squaring costs half of float64's digits,
        which leaves more than float32 has.
        """
        matrix = matrix.double()
        is_wide = matrix.shape[0] <= matrix.shape[1]
        wide = matrix if is_wide else matrix.T
        squares, vectors = torch.linalg.eigh(wide @ wide.T)
        values = squares.flip(0).clamp(min=0).sqrt()
        keep = _above_noise(values)
        left = vectors.flip(1)[:, keep]
        right = left.T @ wide / values[keep, None]
        return cls(left, values[keep], right) if is_wide else cls(right.T, values[keep], left.T)

    @classmethod
    def of_product(cls, up: Tensor, down: Tensor) -> Self:
        """Decomposes `up @ down` without building it.

        Args:
            up: (out, rank).
            down: (rank, in).
        """
        outer, up_core = torch.linalg.qr(up.double())
        inner, down_core = torch.linalg.qr(down.double().T)
        left, values, right = torch.linalg.svd(up_core @ down_core.T, full_matrices=False)
        keep = _above_noise(values)
        return cls(outer @ left[:, keep], values[keep], right[keep] @ inner.T)

    @property
    def rank(self) -> int:
        """The rank of the matrix."""
        return len(self.values)

    def rank_of_energy(self, energy: float) -> int:
        """Returns the least rank that keeps a share of the sum of squares, in 0...1."""
        shares = self.values.square().cumsum(0) / self.values.square().sum()
        return min(int((shares < energy).sum()) + 1, self.rank)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Returns the `up` and `down` of a rank whose product is nearest to the matrix.

        Both have the same norm. A matrix of a lower rank, such as one of zeros, gets factors of
        that rank, but of 1 at least.
        """
        rank = min(rank, self.rank)
        if rank == 0:
            return self.left.new_zeros(len(self.left), 1), self.right.new_zeros(
                1, self.right.shape[1]
            )
        root = self.values[:rank].sqrt()
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]


def checked_rank(rank: object) -> int:
    """Returns a rank.

    Raises:
        AdapterError: The rank is not a positive whole number.
    """
    if isinstance(rank, int) and not isinstance(rank, bool) and rank > 0:
        return rank
    raise AdapterError(f"a LoRA cannot have rank {rank!r}.", hint="Try rank=8.")


def checked_share(name: str, value: float) -> float:
    """Returns a share of a whole, above 0 and at most 1.

    Args:
        name: The argument, for messages.
        value: The share.

    Raises:
        AdapterError: The share is outside that range.
    """
    if 0 < value <= 1:
        return value
    raise AdapterError(f"{name}={value!r} is not above 0 and at most 1.", hint=f"Try {name}=0.5.")


def _above_noise(values: Tensor) -> Tensor:
    return values > _NOISE * values.max() if len(values) else values > 0
