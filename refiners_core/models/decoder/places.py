"""The places of tokens, and the tokens that each token attends to."""

from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from refiners_core.models.decoder.cache import CACHE, PLACES, Cache
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

TOKEN_MASK: Final = "decoder.mask"
"""The context key of the mask of a call, (rows, tokens): True for tokens, False for padding."""
VISIBLE: Final = "decoder.visible"
"""The context key of the mask of attention to all tokens before."""
RECENT: Final = "decoder.recent"
"""The context key of the number of tokens at the end of a call whose logits are computed."""
NEAR: Final = "decoder.near"
"""The context key of the mask of attention to a window."""


class CountPlaces(Layer):
    """Returns the place of each token: the number of tokens before it that are not padding.

    The tokens of earlier calls count, if the context has a cache.
    """

    def run(self, context: Context, *inputs: Any) -> Int[Tensor, "#rows tokens"]:
        """Takes features (rows, tokens, width), of which it reads only the sizes."""
        features: Tensor = inputs[0]
        tokens, cache = features.shape[1], context.get(CACHE)
        begin = 0 if cache is None else cache.length
        real = _real(context, features)
        if real is None:
            return torch.arange(begin, begin + tokens, device=features.device)[None]
        return (real.long().cumsum(-1) - 1).clamp(min=0)[:, -tokens:]


class LearnedPlaces(Layer):
    """Returns learned features of the place of each token.

    Args:
        places: The number of places.
        width: Features of a token.
    """

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(places, width))
        nn.init.normal_(self.weight, std=0.02)

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "#rows tokens width"]:
        return self.weight[context[PLACES]]

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class Visible(Layer):
    """Returns True for each token that a token attends to: itself, and those before that are not
    padding.

    A token of padding attends to itself alone, so that its features stay finite.

    Args:
        window: The number of tokens that a token attends to, itself included; all by default.
    """

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window: Final = window

    def run(self, context: Context, *inputs: Any) -> Bool[Tensor, "#rows 1 tokens all"] | None:
        """Takes features (rows, tokens, width), of which it reads only the sizes; returns None if
        every token attends to all."""
        features: Tensor = inputs[0]
        tokens, cache = features.shape[1], context.get(CACHE)
        total = tokens + (0 if cache is None else cache.length)
        real = _real(context, features)
        if tokens == 1 and real is None and (self.window is None or total <= self.window):
            return None
        column = torch.arange(total, device=features.device)[None]
        key = column[:, None]
        query = key[..., -tokens:].mT
        seen = key <= query
        if self.window is not None:
            # Padding between tokens, as after virtual ones, does not count.
            place = column if real is None else real.long().cumsum(-1)
            seen = seen & (place[:, None] > place[:, -tokens:, None] - self.window)
        if real is not None:
            seen = seen & real[:, None] | (key == query)
        return seen[:, None]

    def extra_repr(self) -> str:
        return "" if self.window is None else f"window={self.window}"


class Recent(Layer):
    """Passes the features of the last tokens on, or of all if the context has no number.

    The logits of a long prompt would take more memory than everything else.
    """

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "rows last width"]:
        features: Tensor = inputs[0]
        count: int | None = context.get(RECENT)
        return features if count is None else features[:, -count:]


def _real(context: Context, features: Tensor) -> Bool[Tensor, "rows all"] | None:
    """Returns True for each token so far that is not padding; None if none is."""
    mask: Tensor | None = context.get(TOKEN_MASK)
    cache: Cache | None = context.get(CACHE)
    rows, tokens = features.shape[:2]
    if cache is not None:
        return cache.real(mask, rows, tokens, features.device)
    return None if mask is None else mask.bool().expand(rows, -1)
