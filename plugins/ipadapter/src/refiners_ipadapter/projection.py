"""The projections of pictures and faces to tokens."""

from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

from refiners_core import Chain, Distribute, Identity, Lambda, Multiply, Sum
from refiners_core.models.image_prompt import GuidedResampler, ResamplerConfig, first_input

SHORTCUT: Final = "faceid.shortcut"
"""The context key of the weight of a face's picture beside its embedding, in FaceID Plus v2."""


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


class FullProjection(Chain):
    """Projects the features of every patch to a token (released code of IP-Adapter Full).

    Args:
        features: Features of a patch.
        width: Features of a token, as wide as the text's.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__(
            expand=nn.Linear(features, features),
            act=nn.GELU(),
            contract=nn.Linear(features, width),
            norm=nn.LayerNorm(width),
        )


class FaceProjection(Chain):
    """Projects the embedding of a face to a few tokens (released code of IP-Adapter FaceID).

    Args:
        face: The numbers of an embedding.
        width: Features of a token, as wide as the text's.
        tokens: The number of tokens.
        inner: Features between the two layers; by default twice those of an embedding.
    """

    def __init__(self, face: int, width: int, tokens: int = 4, inner: int | None = None) -> None:
        inner = inner or 2 * face
        super().__init__(
            expand=nn.Linear(face, inner),
            act=nn.GELU(),
            contract=nn.Linear(inner, tokens * width),
            split=SplitTokens(tokens),
            norm=nn.LayerNorm(width),
        )


class FaceResampler(Chain):
    """Lets the tokens of a face's embedding attend to the patches of its picture (FaceID Plus).

    Takes the embedding `(rows, face)` and the features of the patches `(rows, patches, features)`.

    Args:
        face: The projection of the embedding.
        config: The sizes of the resampler.
        has_shortcut: Whether the tokens of the embedding are added to the result (Plus v2), whose
            weight is then the value of `SHORTCUT` in the context.
    """

    def __init__(self, face: FaceProjection, config: ResamplerConfig, has_shortcut: bool) -> None:
        resampled = GuidedResampler(config)
        super().__init__(
            inputs=Distribute(face=face, patches=Identity()),
            look=Sum(
                tokens=Lambda(first_input),
                picture=Chain(resampled=resampled, strength=Multiply(SHORTCUT)),
            )
            if has_shortcut
            else Chain(picture=Chain(resampled=resampled)),
        )
