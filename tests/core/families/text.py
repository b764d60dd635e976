"""Textual inversion, ELLA, another text encoder: new words, and who reads them."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Concatenate,
    Context,
    Edit,
    Identity,
    Lambda,
    Parallel,
    Passthrough,
    Seat,
    SetContext,
    UseContext,
    When,
    select,
)


class NewWords(Chain):
    """Gives tokens of one's own features of their own, and leaves the others to the base's table.

    Several adapters may stand around one table: each knows its tokens by what it is told.
    """

    def __init__(self, inner: nn.Module, own: nn.Embedding, key: str) -> None:
        super().__init__(inner=inner, own=own)
        self.key = key

    def run(self, context: Context, *inputs: Tensor) -> Tensor:
        ids, first = inputs[0], context.get(self.key)
        if first is None:
            return self.call(self.inner, context, ids)
        place = first - ids  # the first token is `first`, the next one less
        is_own = (ids < 0) & (place >= 0) & (place < self.own.num_embeddings)
        features = self.call(self.inner, context, torch.where(is_own, 0, ids))
        own = self.call(self.own, context, place.clamp(0, self.own.num_embeddings - 1))
        return torch.where(is_own[..., None], own, features)


class TextualInversion(Adapter):
    """A new word with features that were learnt (arXiv:2208.01618, section 4)."""

    def __init__(self, word: str = "<cat>", count: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.words = {word: count}

    def edits(self, model: Any) -> tuple[Edit, ...]:
        count = sum(self.words.values())

        def with_words(inner: nn.Module, seat: Seat) -> nn.Module:
            own = self.layer(seat, lambda: nn.Embedding(count, seat.layer.embedding_dim))
            return NewWords(inner, own, self.context_key("words"))

        return model.slot("text_encoder.embedding").wrap(with_words, name="words")


class Connector(Chain):
    """Turns features of a large language model into tokens, differently at each noise level."""

    def __init__(self, features: str, width: int) -> None:
        super().__init__(
            Parallel(UseContext(features), UseContext("timestep")),
            Lambda(at_time),
            nn.Linear(width, width),
        )


def at_time(features: Tensor, timestep: Tensor) -> Tensor:
    return features * (1 + torch.cos(timestep.to(features.dtype) / 200)).view(-1, 1, 1)


class Ella(Adapter):
    """Another reader of the prompt, whose tokens depend on the timestep (arXiv:2403.05135, 3.2)."""

    takes_condition: ClassVar[bool] = True

    def build(self, model: Any, source: Any) -> None:
        self.width = model.unet.config.text_width
        self.reader = nn.Embedding(256, self.width).to(model.unet.dtype)
        self.connector = Connector(self.context_key("features"), self.width).to(model.unet.dtype)

    def edits(self, model: Any) -> tuple[Edit, ...]:
        tell = Passthrough(When(self.scale_key, self.connector, SetContext("text")))
        return model.slot("unet.input").before("ella", lambda seat: tell)

    def encode(self, value: str, request: Any) -> dict[str, dict[str, Tensor]]:
        def read(text: str) -> Tensor:
            return self.reader(torch.tensor([list(text.encode().ljust(16)[:16])]))

        return {self.context_key("features"): {"cond": read(value), "uncond": read("")}}


class TextEncoder(Adapter):
    """Another text encoder in place of the base's: a component of a model is a place too."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        width = model.unet.config.text_width

        def other(seat: Seat) -> nn.Module:
            return self.layer(seat, lambda: Chain(nn.Embedding(600, width), nn.LayerNorm(width)))

        return select(model).named("text_encoder").replace(other)


class Longer(Adapter):
    """More tokens after those of the text, for every pass."""

    def edits(self, model: Any) -> tuple[Edit, ...]:
        width = model.unet.config.text_width

        def more(inner: nn.Module, seat: Seat) -> nn.Module:
            own = self.layer(seat, lambda: nn.Embedding(2, width))
            return Chain(
                inner, Concatenate(Identity(), When(self.scale_key, Lambda(first_two), own))
            )

        return select(model).named("text_encoder").wrap(more, stage="output")


def first_two(x: Tensor) -> Tensor:
    return torch.arange(2, device=x.device).expand(len(x), 2)
