"""The keys and values of the tokens so far, which travel with the calls of one generation."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from refiners_core.tree.chain import Chain
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

PLACES: Final = "decoder.places"
"""The context key of the place of each token of a call, (rows, tokens) or (1, tokens)."""
CACHE: Final = "decoder.cache"
"""The context key of the `Cache`; without one, a call sees its own tokens alone."""
PAST: Final = "decoder.past"
"""The context key of the `Past` of the block that runs."""
BEGUN: Final = "decoder.begun"
"""The context key of the tokens that adapters put before the text: a `Cache` with those of each
adapter, by the context key under which a block finds its keys, values and places of them."""


class Cache:
    """The keys and values of the tokens of earlier calls, and which tokens are not padding.

    Pass a new one to the first call and the same one to the next calls, each with the tokens that
    follow. It has room for `capacity` tokens from the start and grows if that is exceeded.

    Args:
        capacity: The expected number of tokens.

    Example:
        >>> cache = Cache(8)
        >>> cache.length, cache.capacity
        (0, 8)
    """

    def __init__(self, capacity: int) -> None:
        self.capacity: Final = capacity
        self.length = 0
        """The number of tokens so far."""
        self.places: Tensor | None = None
        """The places of the tokens of the last call, (rows, tokens) or (1, tokens)."""
        self.begun: dict[str, Cache] = {}
        """The tokens that adapters put before the text, by a context key of each adapter, which
        computes them at the first call."""
        self._pasts: list[Past] = []
        self._real: Tensor | None = None

    def past(self, block: int) -> "Past":
        """Returns the keys and values of a block, by its position among the blocks."""
        while len(self._pasts) <= block:
            self._pasts.append(Past(self.capacity))
        past = self._pasts[block]
        past.length = self.length
        return past

    def real(
        self,
        mask: Bool[Tensor, "#rows tokens"] | None,
        rows: int,
        tokens: int,
        device: torch.device,
    ) -> Bool[Tensor, "rows all"] | None:
        """Adds the tokens of a call and returns True for each token so far that is not padding.

        Args:
            mask: True for the tokens of the call that are not padding; None if none is.
            rows: The number of rows of the call.
            tokens: The number of tokens of the call.
            device: The device of the result.

        Returns:
            None if no token so far is padding.
        """
        if mask is None and self._real is None:
            return None
        before = self._real
        if before is None:
            before = torch.ones(rows, self.length, dtype=torch.bool, device=device)
        if mask is None:
            mask = torch.ones(rows, tokens, dtype=torch.bool, device=device)
        self._real = torch.cat([before[:, : self.length], mask.bool().expand(rows, -1)], dim=1)
        return self._real

    def first_row(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Returns copies of the keys and values of the first row, without padding.

        Returns:
            For each block, both as (1, tokens, shared).
        """
        real = slice(None) if self._real is None else self._real[0]
        written = [self.past(block).written for block in range(len(self._pasts))]
        return tuple((k[:1, real].clone(), v[:1, real].clone()) for k, v in written)

    def advance(self, tokens: int) -> None:
        """Ends a call with so many tokens: the next ones follow them."""
        self.length += tokens


class Past:
    """The keys and values of a block, from the second call on in tensors with room for more.

    Args:
        capacity: The number of tokens to make room for.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        """The number of tokens before those of the call."""
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def make_room(self, tokens: int) -> None:
        """Makes room for further tokens.

        It runs before a block, as a compiled block must not depend on how much room is left.
        """
        if self._keys is not None and self._values is not None:
            end = self.length + tokens
            self._keys, self._values = self._roomy(self._keys, end), self._roomy(self._values, end)

    def joined(
        self, k: Float[Tensor, "rows tokens shared"], v: Float[Tensor, "rows tokens shared"]
    ) -> tuple[Float[Tensor, "rows all shared"], Float[Tensor, "rows all shared"]]:
        """Writes keys and values after those so far, for which there is room, and returns all."""
        if self._keys is None or self._values is None:
            self._keys, self._values = k, v
            return k, v
        end = self.length + k.shape[1]
        self._keys[:, self.length : end] = k
        self._values[:, self.length : end] = v
        return self._keys[:, :end], self._values[:, :end]

    @property
    def written(self) -> tuple[Tensor, Tensor]:
        """The keys and values so far, (rows, tokens, shared)."""
        assert self._keys is not None, "a call has written them"
        assert self._values is not None, "a call has written them"
        return self._keys[:, : self.length], self._values[:, : self.length]

    def _roomy(self, x: Tensor, end: int) -> Tensor:
        size = x.shape[1]
        if size >= end:
            return x
        larger = x.new_empty(
            x.shape[0], max(end, self.capacity if size < self.capacity else 2 * size), x.shape[2]
        )
        larger[:, : self.length] = x[:, : self.length]
        return larger


class JoinPast(Layer):
    """Puts the keys and values of earlier calls before those of the call, if there is a cache."""

    def run(self, context: Context, *inputs: Any) -> tuple[Tensor, ...]:
        q, k, v, *rest = inputs
        past: Past | None = context.get(PAST)
        if past is not None:
            k, v = past.joined(k, v)
        return (q, k, v, *rest)


class Blocks(Chain):
    """Runs blocks one after the other, each with its part of the cache and of the tokens that
    adapters put before the text."""

    def run(self, context: Context, *inputs: Any) -> Any:
        cache: Cache | None = context.get(CACHE)
        x: Any = inputs[0]
        tokens = x.shape[1]
        begun: Mapping[str, Cache] = context.get(BEGUN) or {}
        if cache is not None:
            cache.places = context.get(PLACES)
        for i, block in enumerate(self):
            if cache is not None:
                past = context[PAST] = cache.past(i)
                past.make_room(tokens)
            for key, before in begun.items():
                context[key] = (*before.past(i).written, before.places)
            x = self.call(block, context, x)
        if cache is not None:
            cache.advance(tokens)
        return x
