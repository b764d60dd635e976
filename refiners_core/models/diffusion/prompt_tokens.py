"""The tokens of prompts, aligned with their features."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PromptTokens:
    """The tokens of texts, one for each feature that is handed on to the UNet.

    A text of several windows has their tokens one after the other, and the tokens of a shorter text
    are repeated as its features are; so a row is as long as that of `text_encoder.output`.
    """

    ids: tuple[Int[Tensor, "texts tokens"], ...]
    """The ids that each text encoder reads, in the order of the places of `text_encoder.output`;
    negative ids are those of words that adapters bring."""
    weights: Float[Tensor, "texts tokens"]
    """The weight of each token, 1 where the prompt has none."""
