"""An attention to an image that shares the queries of an attention to the text."""

from torch import Tensor, nn

from refiners_core.layers.attention import Attend
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Lambda, Multiply, Parallel, UseContext, When


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
