"""The layer that looks up the vectors of learned words."""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from refiners_core import Chain, Context


class LearnedWords(Chain):
    """Looks up the tokens of learned words in a table, and all others in the base's.

    The scale moves the vectors along the line from their beginning, at 0, to the learned ones, at
    1. They begin at the vector of another token, or at the origin.

    Args:
        inner: The token embedding of the base.
        learned: The vectors of the words, one after the other.
        words_key: The context key of the first token.
        scale_key: The context key of the scale.
        initial: The token at whose vector they begin; None for the origin.
    """

    def __init__(
        self,
        inner: nn.Module,
        learned: nn.Embedding,
        *,
        words_key: str,
        scale_key: str,
        initial: int | None = None,
    ) -> None:
        super().__init__(inner=inner, learned=learned)
        self.words_key: Final = words_key
        self.scale_key: Final = scale_key
        self.initial: Final = initial

    def run(
        self, context: Context, *inputs: Int[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows tokens width"]:
        ids, first, scale = inputs[0], context.get(self.words_key), context.get(self.scale_key)
        if first is None or scale is None:
            return self.call(self.inner, context, ids)
        place = first - ids  # ids count down
        count = self.layer("learned", nn.Embedding).num_embeddings
        is_learned = (ids < 0) & (place >= 0) & (place < count)
        known = torch.where(is_learned, self.initial or 0, ids)
        features = self.call(self.inner, context, known)
        learned = self.call(self.learned, context, place.clamp(0, count - 1))
        begin = torch.zeros_like(features) if self.initial is None else features
        # exactly the learned vectors at a scale of 1
        vectors = torch.lerp(begin, learned.to(features), scale.to(features))
        return torch.where(is_learned[..., None], vectors, features)

    def extra_repr(self) -> str:
        return f"count={self.layer('learned', nn.Embedding).num_embeddings}"
