"""Transformer blocks inside a convolutional network."""

from torch import nn

from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.layers.feed_forward import GatedFeedForward
from refiners_core.layers.residual_block import check_groups
from refiners_core.layers.tokens import AsTokens
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Residual


class TransformerBlock(Chain):
    """Self-attention, cross-attention to the text and a feed-forward network, each with a residual
    connection.

    Args:
        width: Features of a token.
        heads: Number of attention heads; divides the width.
        text_width: Features of a token of the text.
    """

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__(
            self_attention=Residual(
                norm=nn.LayerNorm(width), attention=SelfAttention(width, heads)
            ),
            cross_attention=Residual(
                norm=nn.LayerNorm(width), attention=CrossAttention(width, heads, text_width)
            ),
            feed_forward=Residual(
                norm=nn.LayerNorm(width), network=GatedFeedForward(width, 4 * width)
            ),
        )


class SpatialTransformer(Residual):
    """Transformer blocks on the positions of a feature map (arXiv:2112.10752, section 3.3).

    Args:
        channels: Channels of the input and output.
        heads: Number of attention heads; divides the number of channels.
        text_width: Features of a token of the text.
        depth: Number of transformer blocks.
        groups: Number of groups of the normalisation; divides the number of channels.
        is_linear: Whether the projections around the blocks are linear layers on tokens instead of
            1x1 convolutions on the map: the same function, with weights of another shape.

    Raises:
        ModelError: The number of groups or heads does not divide the number of channels.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        text_width: int,
        *,
        depth: int,
        groups: int,
        is_linear: bool,
    ) -> None:
        check_groups(channels, groups)
        norm = nn.GroupNorm(groups, channels, eps=1e-6)
        blocks = Chain(
            **{str(i): TransformerBlock(channels, heads, text_width) for i in range(depth)}
        )
        if is_linear:
            super().__init__(
                norm=norm,
                tokens=AsTokens(
                    proj_in=nn.Linear(channels, channels),
                    blocks=blocks,
                    proj_out=nn.Linear(channels, channels),
                ),
            )
        else:
            super().__init__(
                norm=norm,
                proj_in=nn.Conv2d(channels, channels, 1),
                tokens=AsTokens(blocks=blocks),
                proj_out=nn.Conv2d(channels, channels, 1),
            )
