"""What IP-Adapter puts beside each cross-attention, and what makes tokens of an image."""

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Lambda, Multiply, Parallel, UseContext, When
from refiners_core.layers.attention import Attend


class ImageAttention(When):
    """Lets the text's queries look at an image's tokens (arXiv:2308.06721, section 3.2.2, eq. 5).

    Runs only where the context has tokens; its output is to be added to that of the attention to
    the text, before the output projection.

    Args:
        tokens: The context key of the image's tokens, (rows, tokens, width).
        scale: The context key of the adapter's scale.
        width: Features of a token.
        inner: Features of the attention beside which it stands.
        heads: The number of heads of that attention.
    """

    def __init__(self, tokens: str, scale: str, width: int, inner: int, heads: int) -> None:
        super().__init__(
            tokens,
            project=Parallel(
                q=Lambda(queries),
                k=Chain(UseContext(tokens), to_k_ip=nn.Linear(width, inner, bias=False)),
                v=Chain(UseContext(tokens), to_v_ip=nn.Linear(width, inner, bias=False)),
            ),
            attend=Attend(heads),
            scale=Multiply(scale),
        )


def queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns the queries of an attention's inputs: the image is asked what the text is asked."""
    return q


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
