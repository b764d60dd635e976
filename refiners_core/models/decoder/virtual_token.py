"""Learned tokens before the text: keys and values that every token of the text attends to.

The text itself keeps its length, its logits and its cache.
"""

from typing import Any, Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from refiners_core.models.decoder.cache import BEGUN, CACHE, PLACES, Cache
from refiners_core.models.decoder.network import DECODER
from refiners_core.models.decoder.places import NEAR, RECENT, TOKEN_MASK
from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer


class BeginText(Layer):
    """Lets learned features come before the tokens of every text, as if they were tokens.

    Placed before the layer of `decoder.embed`, it runs the decoder, with all other adapters, on the
    features alone. As no token attends to later ones, their keys and values are those that they
    would have before any text; `KeysBefore` puts them there. They are computed at the first call
    with a cache. Of several such layers, the first one comes first in the text.

    Args:
        key: The key of the adapter.
        features: The features, (tokens, width).
    """

    def __init__(self, key: str, features: Float[Tensor, "tokens width"]) -> None:
        super().__init__()
        # A context key of the adapter, as a hot swap with another one knows it.
        self.begun: Final = f"{key}.begun"
        self.features = nn.Parameter(features)

    def run(self, context: Context, *inputs: Any) -> Tensor:
        """Takes the ids of a call and passes them on."""
        ids: Tensor = inputs[0]
        if context.get(f"{self.begun.removesuffix('.begun')}.scale") is None:
            return ids
        cache: Cache | None = context.get(CACHE)
        tokens = None if cache is None else cache.begun.get(self.begun)
        if tokens is None:
            tokens = self._read(context, len(ids))
            if cache is not None:
                cache.begun[self.begun] = tokens
        context[BEGUN] = {**(context.get(BEGUN) or {}), self.begun: tokens}
        return ids

    def _read(self, context: Context, rows: int) -> Cache:
        inside, tokens = context.scope(), Cache(len(self.features))
        inside[CACHE], inside[TOKEN_MASK], inside[RECENT] = tokens, None, 1
        self.call(context[DECODER], inside, self.features.expand(rows, -1, -1))
        return tokens

    def extra_repr(self) -> str:
        return f"tokens={len(self.features)}"


class BegunKeys(Layer):
    """Returns the keys, values and places of the tokens that `BeginText` of an adapter has read;
    None where it has not.

    Args:
        key: The key of the adapter.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.begun: Final = f"{key}.begun"

    def run(self, context: Context, *inputs: Any) -> tuple[Tensor, Tensor, Tensor] | None:
        return context.get(self.begun)


class KeysBefore(Chain):
    """Puts keys and values before those of the tokens.

    It is wrapped around the layer of `decoder.attend`. Every token attends to these keys, within
    the window of its layer.

    Args:
        learned: A layer without inputs that returns keys and values, (rows, keys, shared) or (1,
            keys, shared), and their places, (rows, keys) or (1, keys), or None for those from 0 on;
            instead of all, None if nothing comes before.
        attend: The attention, with the edits of other adapters.
        scale: The context key of the scale; without a value, nothing comes before.
        window: The number of tokens that a token attends to, itself included; all by default.
    """

    def __init__(
        self, learned: Layer, attend: nn.Module, scale: str, window: int | None = None
    ) -> None:
        self.scale: Final = scale
        self.window: Final = window
        super().__init__(learned=learned, attend=attend)

    def run(self, context: Context, *inputs: Any) -> Any:
        """Takes queries, keys, values and optionally a mask."""
        learned, attend = self
        known = None if context.get(self.scale) is None else self.call(learned, context)
        if known is None:
            return self.call(attend, context, *inputs)
        q, k, v, *rest = inputs
        keys, values, places = known
        near = context.get(NEAR)
        if self.window is not None:
            # A mask of the context is one of the last keys, so that others may come before these.
            seen = self._seen(context, keys.shape[1], places, self.window)
            context[NEAR] = _joined(seen, near, k.shape[1])
        rest = [pad(mask, (keys.shape[1], 0), value=mask.dtype == torch.bool) for mask in rest]
        k, v = (
            torch.cat([mine.to(x.dtype).expand(len(q), -1, -1), x], dim=1)
            for mine, x in ((keys, k), (values, v))
        )
        output = self.call(attend, context, q, k, v, *rest)
        if self.window is not None:
            context[NEAR] = near
        return output

    def _seen(
        self, context: Context, keys: int, places: Tensor | None, window: int
    ) -> Bool[Tensor, "#rows 1 queries keys"]:
        """Returns True for the keys in the window of each query."""
        query: Tensor = context[PLACES]
        if places is None:
            places = torch.arange(keys, device=query.device)[None]
        return (places[:, None] > query[:, :, None] - window)[:, None]

    def extra_repr(self) -> str:
        return repr(self.scale) + ("" if self.window is None else f", window={self.window}")


class LaterPlaces(Layer):
    """Moves tokens to later places, after those of learned tokens.

    It is placed after the layer of `decoder.places`.

    Args:
        scale: The context key of the scale; without a value, the places stay.
        by: The number of learned tokens.
        begun: The key of the adapter, if the tokens are those of its `BeginText`.
    """

    def __init__(self, scale: str, by: int, begun: str | None = None) -> None:
        super().__init__()
        self.scale: Final = scale
        self.by: Final = by
        self.begun: Final = None if begun is None else f"{begun}.begun"

    def run(self, context: Context, *inputs: Any) -> Int[Tensor, "#rows tokens"]:
        places: Tensor = inputs[0]
        is_absent = context.get(self.scale) is None
        if is_absent or (self.begun is not None and self.begun not in (context.get(BEGUN) or {})):
            return places
        return places + self.by

    def extra_repr(self) -> str:
        return f"{self.scale!r}, by={self.by}"


def _joined(seen: Tensor, mask: Tensor | None, keys: int) -> Bool[Tensor, "#rows 1 queries all"]:
    """Returns the mask of learned keys and of those after them, given a mask of the last ones."""
    if mask is None:
        return pad(seen, (0, keys), value=True)
    mask = pad(mask, (keys - mask.shape[-1], 0), value=True)
    rows = max(len(seen), len(mask))
    return torch.cat([seen.expand(rows, -1, -1, -1), mask.expand(rows, -1, -1, -1)], dim=-1)
