"""The transformer that CLIP's two encoders share."""

from torch import nn

from refiners_core.layers.attention import SelfAttention
from refiners_core.layers.feed_forward import FeedForward, QuickGelu
from refiners_core.models.clip.config import ClipImageConfig, ClipTextConfig
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Residual, SetContext

PENULTIMATE = "clip.penultimate"
"""The context key of the features before the last layer, without the final norm."""


class ClipLayer(Chain):
    """A pre-norm transformer layer: self-attention, then a feed-forward network (arXiv:2103.00020).

    Args:
        config: The sizes of the encoder.
        is_causal: Whether a token attends only to itself and to those before it.
    """

    def __init__(self, config: ClipTextConfig | ClipImageConfig, is_causal: bool) -> None:
        activation = QuickGelu() if config.activation == "quick_gelu" else nn.GELU()
        super().__init__(
            self_attention=Residual(
                norm=nn.LayerNorm(config.width, config.eps),
                attention=SelfAttention(
                    config.width, config.heads, has_bias=True, is_causal=is_causal
                ),
            ),
            feed_forward=Residual(
                norm=nn.LayerNorm(config.width, config.eps),
                network=FeedForward(config.width, config.inner_width, activation),
            ),
        )


class ClipTransformer(Chain):
    """The layers of an encoder; the input of the last one is written to the context as well.

    Args:
        config: The sizes of the encoder.
        is_causal: Whether a token attends only to itself and to those before it.
    """

    def __init__(self, config: ClipTextConfig | ClipImageConfig, is_causal: bool = False) -> None:
        children: dict[str, nn.Module] = {
            str(i): ClipLayer(config, is_causal) for i in range(config.layers)
        }
        last = children.popitem()
        super().__init__(**children, penultimate=SetContext(PENULTIMATE), **dict([last]))
