"""
Textual inversion
=================

A new word with learnt features (arXiv:2208.01618, section 4). It is known while its adapter acts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from refiners_core import Adapter, Chain, Context, Edit, Seat


class NewWords(Chain):
    """Looks up the adapter's tokens in its own table, and all others in the base's.

    Several adapters may wrap one table: each knows its tokens by the number in the context.
    """

    def __init__(self, inner: nn.Module, new: nn.Embedding, key: str) -> None:
        super().__init__(inner=inner, new=new)
        self.key = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        ids, first = inputs[0], context.get(self.key)
        if first is None:
            return self.call(self.inner, context, ids)
        place = first - ids  # the first token is `first`, the next one less
        is_new = (ids < 0) & (place >= 0) & (place < self.new.num_embeddings)
        features = self.call(self.inner, context, torch.where(is_new, 0, ids))
        new = self.call(self.new, context, place.clamp(0, self.new.num_embeddings - 1))
        return torch.where(is_new[..., None], new, features)


class TextualInversion(Adapter):
    """Teaches the text encoder a word (arXiv:2208.01618, section 4)."""

    def __init__(self, word: str = "<cat>", count: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.words = {word: count}

    def edits(self, model: Any) -> tuple[Edit, ...]:
        count = sum(self.words.values())

        def with_words(inner: nn.Module, seat: Seat) -> nn.Module:
            new = self.layer(seat, lambda: nn.Embedding(count, seat.layer.embedding_dim))
            return NewWords(inner, new, self.context_key("words"))

        return model.slot("text_encoder.embedding").wrap(with_words, name="words")


# %%
# On a tiny model
# ---------------

if __name__ == "__main__":
    from refiners_core.testing import tiny_model

    model = tiny_model()
    word = TextualInversion("<cat>", key="cat").inject(model)
    print(model.text_encoder.layer("embed", Chain))
    model.generate("a <cat>", steps=2, seed=7, progress=False)
