"""
Adapters of language models
===========================

The same doors on a decoder-only transformer: LoRA, prefix tuning (arXiv:2101.00190), prompt tuning
(arXiv:2104.08691), IA3 (arXiv:2205.05638) and bottleneck adapters (arXiv:1902.00751).
"""

# %%
# A language model
# ----------------
# Its slots name what an adapter changes: linear layers, attention, the places of tokens. Here it is
# a tiny one with random weights; ``refiners.load_model`` opens the folders of released ones.

from typing import Any

import torch
from lora import LoraChange
from torch import Tensor, nn

from refiners_core import (
    Adapter,
    Chain,
    Context,
    Edit,
    Layer,
    Model,
    Multiply,
    Residual,
    Seat,
    Sum,
    When,
)
from refiners_core.models.decoder import CACHE, TOKEN_MASK, LanguageModel
from refiners_core.testing import tiny_language_model

LEARNED = 2  # keys or features that an adapter puts before the text


def language_model() -> LanguageModel:
    return tiny_language_model(ends=(), layers=2)


# %%
# Beside and behind layers
# ------------------------
# A scale of 0 skips them.


class LanguageLora(Adapter):
    """Puts a low-rank change beside the linear layers of all blocks."""

    def edits(self, model: Model) -> tuple[Edit, ...]:
        def beside(inner: nn.Module, seat: Seat) -> nn.Module:
            change = self.layer(seat, lambda: LoraChange(seat.layer))
            return Sum(inner, When(self.scale_key, change, Multiply(self.scale_key)))

        return model.slot("decoder.linear").wrap(beside, name="lora")


class Stretch(Layer):
    """Multiplies each feature by a learnt number, as far as the scale goes."""

    def __init__(self, width: int, scale: str) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.linspace(0.5, 1.5, width))
        self.scale = scale

    def run(self, context: Context, *inputs: Any) -> Tensor:
        scale = context.get(self.scale)
        return inputs[0] if scale is None else inputs[0] * (1 + scale * (self.by - 1))


class Ia3(Adapter):
    """Stretches keys, values and what feeds forward (arXiv:2205.05638, section 3.3)."""

    def edits(self, model: Model) -> tuple[Edit, ...]:
        def stretched(inner: nn.Module, seat: Seat) -> nn.Module:
            width = seat.layer.out_features
            return Chain(inner, self.layer(seat, lambda: Stretch(width, self.scale_key)))

        places = model.slot("decoder.linear").named("to_k", "to_v", "value")
        return places.wrap(stretched, stage="output", name="stretch")


class Bottleneck(Adapter):
    """Adds small networks after attention and feed-forward (arXiv:1902.00751, section 2.1)."""

    def edits(self, model: Model) -> tuple[Edit, ...]:
        width = model.facts["width"]

        def small(inner: nn.Module, seat: Seat) -> nn.Module:
            network = self.layer(
                seat, lambda: Chain(nn.Linear(width, 2), nn.GELU(), nn.Linear(2, width))
            )
            change = When(self.scale_key, network, Multiply(self.scale_key))
            return Chain(inner, Residual(change))

        return (
            *model.slot("decoder.attention.output").wrap(small, stage="output", name="small"),
            *model.slot("decoder.feed_forward.output").wrap(small, stage="output", name="small"),
        )


# %%
# Before the text
# ---------------
# Keys that an adapter adds come before those of the tokens, and the tokens move by as many places.
# They are not in the cache: each step adds them again. Features that come before the text are
# tokens like the others, so the first call alone adds them.


class MoreKeys(Layer):
    """Puts learnt keys and values before those of the tokens."""

    def __init__(self, width: int, scale: str) -> None:
        super().__init__()
        self.k, self.v = (nn.Parameter(torch.randn(1, LEARNED, width)) for _ in range(2))
        self.scale = scale

    def run(self, context: Context, *inputs: Any) -> tuple[Any, ...]:
        q, k, v, *rest = inputs
        if context.get(self.scale) is None:
            return inputs
        k, v = (
            torch.cat([mine.expand(len(q), -1, -1), theirs], dim=1)
            for mine, theirs in ((self.k, k), (self.v, v))
        )
        return (q, k, v, *rest)


class Later(Layer):
    """Moves tokens to later places."""

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.scale = scale

    def run(self, context: Context, *inputs: Any) -> Tensor:
        return inputs[0] if context.get(self.scale) is None else inputs[0] + LEARNED


class Prefix(Adapter):
    """Lets every token attend to learnt keys and values (arXiv:2101.00190, section 4.2)."""

    def edits(self, model: Model) -> tuple[Edit, ...]:
        width = model.facts["key_width"]

        def longer(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(self.layer(seat, lambda: MoreKeys(width, self.scale_key)), inner)

        def later(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, Later(self.scale_key))

        return (
            *model.slot("decoder.attend").wrap(longer, stage="inputs", name="prefix"),
            *model.slot("decoder.places").wrap(later, stage="output", name="later"),
        )


class MoreTokens(Layer):
    """Puts learnt features before those of the text, at the first call of a generation."""

    def __init__(self, width: int, scale: str) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(1, LEARNED, width))
        self.scale = scale

    def run(self, context: Context, *inputs: Any) -> Tensor:
        text: Tensor = inputs[0]
        cache, mask = context.get(CACHE), context.get(TOKEN_MASK)
        if context.get(self.scale) is None or (cache is not None and cache.length):
            return text
        if mask is not None:
            context[TOKEN_MASK] = torch.cat([mask.new_ones(len(mask), LEARNED), mask], dim=1)
        return torch.cat([self.features.expand(len(text), -1, -1), text], dim=1)


class PromptTuning(Adapter):
    """Begins every text with learnt features (arXiv:2104.08691, section 2)."""

    def edits(self, model: Model) -> tuple[Edit, ...]:
        width = model.facts["width"]

        def longer(inner: nn.Module, seat: Seat) -> nn.Module:
            return Chain(inner, self.layer(seat, lambda: MoreTokens(width, self.scale_key)))

        return model.slot("decoder.embed").wrap(longer, stage="output", name="prompt")


# %%
# All of them at once
# -------------------

ADAPTERS = (LanguageLora, Ia3, Bottleneck, Prefix, PromptTuning)

if __name__ == "__main__":
    model = language_model()
    bare = model.generate("Once upon a time", max_new_tokens=8)
    adapters = [kind(key=kind.__name__.lower()).inject(model) for kind in ADAPTERS]
    print(model.slot("decoder.block")[0].layer)
    print(repr(model.generate("Once upon a time", max_new_tokens=8)))
    model.eject_all()
    print(model.generate("Once upon a time", max_new_tokens=8) == bare)
