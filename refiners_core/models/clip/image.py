"""CLIP's image encoder."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.layers.embedding import PositionEmbedding
from refiners_core.models.clip.config import ClipImageConfig
from refiners_core.models.clip.layer import PENULTIMATE, ClipTransformer
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Residual
from refiners_core.tree.context import Context


class ClipImageEncoder(Chain):
    """CLIP's image encoder (arXiv:2103.00020, section 2.4; arXiv:2010.11929).

    Takes normalised pixels `(rows, 3, size, size)` and returns `(rows, projection_width)`. Writes
    the features of class token and patches before the last layer, `(rows, 1 + patches, width)`, to
    the context under `clip.penultimate`.

    Args:
        config: The sizes of the encoder.

    Example:
        >>> config = ClipImageConfig(
        ...     image_size=8, patch_size=4, width=8, inner_width=8, layers=2, heads=2,
        ...     projection_width=6,
        ... )
        >>> ClipImageEncoder(config)(torch.randn(1, 3, 8, 8)).shape
        torch.Size([1, 6])
    """

    def __init__(self, config: ClipImageConfig) -> None:
        projection: dict[str, nn.Module] = {}
        if config.projection_width is not None:
            projection["projection"] = nn.Linear(config.width, config.projection_width, bias=False)
        super().__init__(
            embed=PatchEmbedding(config),
            pre_norm=nn.LayerNorm(config.width, config.eps),
            transformer=ClipTransformer(config),
            first=FirstToken(),
            post_norm=nn.LayerNorm(config.width, config.eps),
            **projection,
        )
        self.config: Final = config

    def features(
        self, pixels: Float[Tensor, "rows 3 size size"]
    ) -> Float[Tensor, "rows tokens width"]:
        """Returns the features of class token and patches before the last layer."""
        context = Context({})
        self(pixels, context=context)
        return context[PENULTIMATE]


class PatchEmbedding(Chain):
    """Embeds the patches of an image as tokens, after a class token for the whole image.

    Args:
        config: The sizes of the encoder.
    """

    def __init__(self, config: ClipImageConfig) -> None:
        size = config.patch_size
        super().__init__(
            patch=nn.Conv2d(config.pixel_channels, config.width, size, stride=size, bias=False),
            flatten=FlattenMap(),
            class_token=ClassToken(config.width),
            position=Residual(
                embedding=PositionEmbedding(config.patches + 1, config.width, is_exact=True)
            ),
        )


class FlattenMap(nn.Module):
    """Turns each position of a feature map into a token, row by row."""

    def forward(
        self, x: Float[Tensor, "rows width height columns"]
    ) -> Float[Tensor, "rows positions width"]:
        """Returns the tokens."""
        return x.flatten(2).transpose(1, 2)


class ClassToken(nn.Module):
    """Puts a learnt token before the others.

    Args:
        width: The features of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width) * width**-0.5)

    def forward(
        self, x: Float[Tensor, "rows tokens width"]
    ) -> Float[Tensor, "rows one_more width"]:
        """Returns the class token and the tokens."""
        return torch.cat([self.weight.expand(len(x), 1, -1), x], dim=1)


class FirstToken(nn.Module):
    """Returns the features of the first token, which is for the whole image."""

    def forward(self, x: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows width"]:
        """Returns the features of a token for each row."""
        return x[:, 0]
