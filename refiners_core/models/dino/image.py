"""DINOv2's image encoder, a vision transformer with scaled residual branches."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from refiners_core.layers.attention import SelfAttention
from refiners_core.layers.feed_forward import FeedForward
from refiners_core.models.dino.config import DinoConfig
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Residual


class DinoImageEncoder(Chain):
    """DINOv2's image encoder (arXiv:2304.07193; arXiv:2010.11929).

    Takes normalised pixels `(rows, 3, height, width)`, whose sides are multiples of the patch, and
    returns the features of class token and patches, `(rows, 1 + patches, width)`, after the last
    norm. Positions are interpolated where a picture differs from those of training in size.

    Args:
        config: The sizes of the encoder.

    Example:
        >>> config = DinoConfig(
        ...     image_size=8, input_size=8, patch_size=4, width=8, inner_width=8, layers=1, heads=2
        ... )
        >>> DinoImageEncoder(config)(torch.randn(1, 3, 12, 8)).shape
        torch.Size([1, 7, 8])
    """

    def __init__(self, config: DinoConfig) -> None:
        size = config.patch_size
        super().__init__(
            patch=nn.Conv2d(3, config.width, size, stride=size),
            tokens=PatchTokens(config.grid, config.width),
            transformer=Chain(**{str(i): DinoLayer(config) for i in range(config.layers)}),
            norm=nn.LayerNorm(config.width, config.eps),
        )
        self.config: Final = config


class PatchTokens(nn.Module):
    """Turns a map of patches into tokens with positions, after a class token.

    Args:
        grid: The patches along a side of the images of training.
        width: The features of a token.
    """

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        self.grid: Final = grid
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 1 + grid**2, width) * 0.02)

    def forward(
        self, x: Float[Tensor, "rows width height columns"]
    ) -> Float[Tensor, "rows tokens width"]:
        """Returns the class token and a token for each patch, row by row."""
        first, positions = self.position[:, :1], self.position[:, 1:]
        if tuple(x.shape[-2:]) != (self.grid, self.grid):
            size = (self.grid, self.grid)
            square = positions.transpose(1, 2).unflatten(2, size).float()  # too coarse in half
            square = interpolate(square, x.shape[-2:], mode="bicubic").to(positions.dtype)
            positions = square.flatten(2).transpose(1, 2)
        patches = x.flatten(2).transpose(1, 2) + positions
        return torch.cat([(self.class_token + first).expand(len(x), -1, -1), patches], dim=1)


class DinoLayer(Chain):
    """A pre-norm transformer layer, whose branches are scaled by feature (arXiv:2103.17239).

    Args:
        config: The sizes of the encoder.
    """

    def __init__(self, config: DinoConfig) -> None:
        width, inner = config.width, config.inner_width
        network: dict[str, nn.Module] = (
            {"gated": SwiGlu(width, inner)}
            if config.is_gated
            else {"network": FeedForward(width, inner, nn.GELU())}
        )
        super().__init__(
            self_attention=Residual(
                norm=nn.LayerNorm(width, config.eps),
                attention=SelfAttention(width, config.heads, has_bias=True),
                scale=LayerScale(width),
            ),
            feed_forward=Residual(
                norm=nn.LayerNorm(width, config.eps), **network, scale=LayerScale(width)
            ),
        )


class LayerScale(nn.Module):
    """Multiplies each feature by a learned number (arXiv:2103.17239, section 2).

    Args:
        width: The number of features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows tokens width"]:
        """Returns the scaled features."""
        return x * self.weight


class SwiGlu(Chain):
    """A feed-forward network in which half of the features gate the other half through SiLU
    (arXiv:2002.05202).

    Args:
        width: The features of a token.
        inner: The features between the two layers, after gating.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__(
            expand=nn.Linear(width, 2 * inner), gate=SiluGate(), contract=nn.Linear(inner, width)
        )


class SiluGate(nn.Module):
    """Multiplies the second half of the features by the SiLU of the first."""

    def forward(self, x: Float[Tensor, "rows tokens twice"]) -> Float[Tensor, "rows tokens inner"]:
        """Returns half as many features per token."""
        gate, value = x.chunk(2, dim=-1)
        return silu(gate) * value
