"""Attention inside a convolutional network."""

from torch import nn

from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.layers.feed_forward import GatedFeedForward
from refiners_core.layers.residual_block import check_groups
from refiners_core.layers.tokens import AsTokens
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Residual


class TransformerBlock(Chain):
    """Tokens look at one another, then at the text, then think, each beside a shortcut.

    Args:
        width: Features of a token.
        heads: How many parts of the width attend on their own.
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
    """Transformer blocks on the positions of a map (arXiv:2112.10752, section 3.3).

    Args:
        channels: Channels of the map, in and out.
        heads: How many parts of the channels attend on their own.
        text_width: Features of a token of the text.
        depth: How many transformer blocks.
        groups: Groups of channels that are normalised together.
        is_linear: Whether the projections around the blocks are linear layers on tokens instead of
            1x1 convolutions on the map: the same function, weighed and published differently.
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
