"""The projection of an image embedding to tokens."""

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain


class SplitTokens(nn.Module):
    """Splits one wide vector into tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(
        self, x: Float[Tensor, "rows features"]
    ) -> Float[Tensor, "rows tokens features_over_tokens"]:
        """Splits the features into `tokens` parts of equal width."""
        return x.unflatten(1, (self.tokens, -1))


class ImageProjection(Chain):
    """Projects one image embedding to a few tokens (arXiv:2308.06721, section 3.2.1).

    Args:
        embedding: Features of the image embedding.
        width: Features of a token, as wide as the text's.
        tokens: The number of tokens.
    """

    def __init__(self, embedding: int, width: int, tokens: int = 4) -> None:
        super().__init__(
            proj=nn.Linear(embedding, tokens * width),
            split=SplitTokens(tokens),
            norm=nn.LayerNorm(width),
        )
