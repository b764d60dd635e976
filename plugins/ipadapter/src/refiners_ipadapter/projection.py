"""What makes tokens of an image's embedding."""

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain


class SplitTokens(nn.Module):
    """Cuts one wide vector into tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(
        self, x: Float[Tensor, "rows features"]
    ) -> Float[Tensor, "rows tokens features_over_tokens"]:
        """Returns `tokens` parts of equal width."""
        return x.unflatten(1, (self.tokens, -1))


class ImageProjection(Chain):
    """Makes a few tokens of one image embedding (arXiv:2308.06721, section 3.2.1).

    Args:
        embedding: Features of the image embedding.
        width: Features of a token, those of the text's.
        tokens: How many tokens.
    """

    def __init__(self, embedding: int, width: int, tokens: int = 4) -> None:
        super().__init__(
            proj=nn.Linear(embedding, tokens * width),
            split=SplitTokens(tokens),
            norm=nn.LayerNorm(width),
        )
