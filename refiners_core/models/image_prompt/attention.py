"""An attention to an image that shares the queries of the attention to the text."""

from torch import Tensor, nn

from refiners_core.layers.attend import Attend
from refiners_core.models.image_prompt.mask import PictureAttend
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Lambda, Multiply, Parallel, UseContext, When


class ImageAttention(When):
    """Attends to the tokens of an image (arXiv:2308.06721, section 3.2.2, equation 5).

    It takes the queries of the attention to the text, and runs only if the context has the tokens.
    Its output is added to that attention's, before the output projection.

    Args:
        tokens: The context key of the image's tokens, (rows, tokens, width).
        scale: The context key of the adapter's scale.
        width: The features of a token.
        inner: The features of the attention to the text.
        heads: The heads of the attention to the text.
        mask: The context key of masks for the pictures; empty without masks.
    """

    def __init__(
        self, tokens: str, scale: str, width: int, inner: int, heads: int, mask: str = ""
    ) -> None:
        super().__init__(
            tokens,
            project=Parallel(
                q=Lambda(queries),
                k=Chain(UseContext(tokens), to_k_ip=nn.Linear(width, inner, bias=False)),
                v=Chain(UseContext(tokens), to_v_ip=nn.Linear(width, inner, bias=False)),
            ),
            attend=PictureAttend(mask, heads) if mask else Attend(heads),
            scale=Multiply(scale),
        )


def queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns the queries of an attention's inputs."""
    return q
