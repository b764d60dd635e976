"""Limits of the clean latents that a prediction implies."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Limit:
    """Keeps predicted clean latents within a range, as models of pixels were published.

    Example:
        >>> Limit(most=1.0)(torch.tensor([[0.5, -3.0]]))
        tensor([[ 0.5000, -1.0000]])
    """

    most: float = 1.0
    """The largest magnitude; with a quantile, the largest value that the quantile may have."""
    quantile: float | None = None
    """Without it values are cut at `most`. With it, a share in 0...1, each image is cut at that
    quantile of its magnitudes and divided by it, if it exceeds 1: dynamic thresholding
    (arXiv:2205.11487, section 2.3)."""

    def __call__(self, x0: Float[Tensor, "rows *shape"]) -> Float[Tensor, "rows *shape"]:
        """Returns clean latents within the range."""
        if self.quantile is None:
            return x0.clamp(-self.most, self.most)
        rows = x0.reshape(len(x0), -1).abs()
        bound = rows.quantile(self.quantile, dim=1).clamp(1.0, self.most)
        bound = bound.reshape(-1, *[1] * (x0.ndim - 1))
        return x0.clamp(-bound, bound) / bound
