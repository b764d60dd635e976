"""CLIP's text encoder."""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from refiners_core.layers.embedding import PositionEmbedding
from refiners_core.models.clip.config import ClipTextConfig
from refiners_core.models.clip.layer import ClipTransformer
from refiners_core.models.clip.window import SpreadRows, TextOutput
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Parallel, Passthrough, SetContext, Sum, UseContext

POOLED = "clip.pooled"
"""The context key of the pooled text: the projected features of a whole text."""
_TOKENS = "clip.tokens"


class ClipTextEncoder(Chain):
    """CLIP's text encoder (arXiv:2103.00020, section 2.4).

    Takes ids `(rows, tokens)` and returns features `(rows, tokens, width)`; where the context has
    windows, a row for each text. Writes the features
    before the last layer to the context under `clip.penultimate`, and the pooled text, `(rows,
    projection_width)`, under `clip.pooled` if the encoder has a projection.

    Args:
        config: The sizes of the encoder.
        is_part: Whether the chain around it takes other features than those that it returns, and
            hands them on.

    Example:
        >>> config = ClipTextConfig(vocabulary=9, width=8, inner_width=8, layers=2, heads=2)
        >>> ClipTextEncoder(config)(torch.tensor([[1, 5, 2]])).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, config: ClipTextConfig, *, is_part: bool = False) -> None:
        pooling: dict[str, nn.Module] = {}
        if config.projection_width is not None:
            pooling["pooling"] = TextPooling(config, config.projection_width)
        super().__init__(
            rows=SpreadRows(),
            **({"tokens": SetContext(_TOKENS)} if pooling else {}),
            embed=Sum(
                token=nn.Embedding(config.vocabulary, config.width),
                position=PositionEmbedding(config.max_tokens, config.width),
            ),
            transformer=ClipTransformer(config, is_causal=True),
            norm=nn.LayerNorm(config.width, config.eps),
            **pooling,
            **({} if is_part else {"features": TextOutput()}),
        )
        nn.init.normal_(self.layer("embed.token", nn.Embedding).weight, std=0.02)
        self.config: Final = config


class TextPooling(Passthrough):
    """Writes the projected features of the end token, which attends to the whole text.

    Args:
        config: The sizes of the encoder.
        width: The features of a whole text.
    """

    def __init__(self, config: ClipTextConfig, width: int) -> None:
        super().__init__(
            Parallel(features=nn.Identity(), tokens=UseContext(_TOKENS)),
            end=EndToken(config.end_token),
            projection=nn.Linear(config.width, width, bias=False),
            keep=SetContext(POOLED),
        )


class EndToken(nn.Module):
    """Returns the features of the first end token of each text.

    Args:
        token: The id of the end token. Early configurations have 2 and mean the highest id.
    """

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token: Final = token

    def forward(
        self, features: Float[Tensor, "rows tokens width"], tokens: Int[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows width"]:
        """Returns the features of a token for each text."""
        rows = torch.arange(len(tokens), device=features.device)
        return features[rows, first_end(tokens, self.token)]


def first_end(tokens: Int[Tensor, "rows tokens"], token: int) -> Int[Tensor, "rows"]:
    """Returns the position of the first end token of each text.

    Args:
        tokens: Rows of ids.
        token: The id of the end token. Early configurations have 2 and mean the highest id.
    """
    is_end = tokens if token == 2 else (tokens == token).int()
    return is_end.argmax(dim=-1)
