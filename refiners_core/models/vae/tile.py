"""Tiling: encoding and decoding large images in little memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.errors import ModelError


@dataclass(frozen=True)
class Tiling:
    """The size of the tiles in which an autoencoder works, and of its batches.

    Tiles overlap and are blended, because each is normalised alone: the result is close to that of
    the whole image, not equal to it. An image that fits into one tile is not tiled.

    Raises:
        ModelError: Tiles are smaller than twice their overlap, or `rows` is less than 1.
    """

    side: int = 64
    """The height and width of a tile in latents; 64 are 512 pixels in Stable Diffusion."""
    overlap: int = 16
    """The overlap of neighbours in latents."""
    rows: int = 1
    """The number of images in a batch."""

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.side < max(1, 2 * self.overlap) or self.rows < 1:
            raise ModelError(
                "tiles are at least twice as long as their overlap, and batches have at least one "
                f"row; got side={self.side}, overlap={self.overlap}, rows={self.rows}.",
                hint="Try Tiling(side=64, overlap=16, rows=1).",
            )

    def map(
        self,
        function: Callable[[Tensor], Tensor],
        x: Float[Tensor, "rows channels height width"],
        reads: int,
        writes: int,
    ) -> Float[Tensor, "rows channels_out height_out width_out"]:
        """Applies a function to feature maps tile by tile, and blends the results.

        Args:
            function: A function whose output has `writes` positions for `reads` of its input.
            x: Feature maps whose sides are multiples of `reads`.
            reads: The positions of the input per latent, along each side.
            writes: The positions of the output per latent, along each side.
        """
        return torch.cat(
            [self._blended(function, part, reads, writes) for part in x.split(self.rows)]
        )

    def _blended(
        self, function: Callable[[Tensor], Tensor], x: Tensor, reads: int, writes: int
    ) -> Tensor:
        down, across = (self._spans(size // reads) for size in x.shape[-2:])
        if len(down) == len(across) == 1:
            return function(x)
        whole: Tensor | None = None
        for top, share_down in zip(down, self._shares(down, writes), strict=True):
            for left, share_across in zip(across, self._shares(across, writes), strict=True):
                tile = function(x[..., _cut(top, reads), _cut(left, reads)])
                if whole is None:
                    size = down[-1].stop * writes, across[-1].stop * writes
                    whole = tile.new_zeros(*tile.shape[:2], *size)
                shares = (share_down[:, None] * share_across).to(tile)
                whole[..., _cut(top, writes), _cut(left, writes)] += tile * shares
        assert whole is not None
        return whole

    def _spans(self, length: int) -> list[range]:
        """Returns the fewest tiles along one side, spread evenly."""
        if length <= self.side:
            return [range(length)]
        gaps = -(-(length - self.side) // (self.side - self.overlap))
        starts = [round(i * (length - self.side) / gaps) for i in range(gaps + 1)]
        return [range(start, start + self.side) for start in starts]

    def _shares(self, spans: list[range], scale: int) -> list[Tensor]:
        """Returns the weights of each tile's positions; those of a position sum to 1."""
        ramp = max(1, self.overlap * scale)
        total = torch.zeros(spans[-1].stop * scale, dtype=torch.float32, device="cpu")
        shares: list[Tensor] = []
        for span in spans:
            rise = (
                torch.arange(1, len(span) * scale + 1, device="cpu").float().clamp(max=ramp) / ramp
            )
            shares.append(torch.minimum(rise, rise.flip(0)))
            total[_cut(span, scale)] += shares[-1]
        return [share / total[_cut(span, scale)] for share, span in zip(shares, spans, strict=True)]


def _cut(span: range, scale: int) -> slice:
    return slice(span.start * scale, span.stop * scale)
