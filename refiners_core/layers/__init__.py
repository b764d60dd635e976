"""The layers that `torch.nn` lacks, as trees whose leaves are modules of torch where possible."""

from refiners_core.layers.attend import Attend
from refiners_core.layers.attention import CrossAttention, SelfAttention
from refiners_core.layers.convolution import Convolution
from refiners_core.layers.embedding import PositionEmbedding
from refiners_core.layers.feed_forward import (
    FeedForward,
    GatedFeedForward,
    GatedGelu,
    QuickGelu,
)
from refiners_core.layers.mask import MaskMap, MaskTokens, mask_of_tokens, size_of_tokens
from refiners_core.layers.resample import Downsample, ResizeLike, Upsample, UpsampleLike
from refiners_core.layers.residual_block import ResidualBlock
from refiners_core.layers.timestep import EachEmbedding, SinusoidalEmbedding, TimestepEncoder
from refiners_core.layers.tokens import AsTokens
from refiners_core.layers.transformer import SpatialTransformer, TransformerBlock

__all__ = [
    "AsTokens",
    "Attend",
    "Convolution",
    "CrossAttention",
    "Downsample",
    "EachEmbedding",
    "FeedForward",
    "GatedFeedForward",
    "GatedGelu",
    "MaskMap",
    "MaskTokens",
    "PositionEmbedding",
    "QuickGelu",
    "ResidualBlock",
    "ResizeLike",
    "SelfAttention",
    "SinusoidalEmbedding",
    "SpatialTransformer",
    "TimestepEncoder",
    "TransformerBlock",
    "Upsample",
    "UpsampleLike",
    "mask_of_tokens",
    "size_of_tokens",
]
