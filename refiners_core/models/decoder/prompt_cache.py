"""Keys and values of a prompt, kept by the caller for prompts that begin alike."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import ref

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refiners_core.models.decoder.cache import Cache
from refiners_core.models.decoder.request import TextRequest

Pair = tuple[Float[Tensor, "1 tokens shared"], Float[Tensor, "1 tokens shared"]]
"""The keys and values of a block."""


class PromptCache:
    """Saves later calls the part of their prompts that an earlier call has read already.

    Pass one to each call that may begin as the last one did, such as the next turn of a
    conversation, or the questions to one document: `model.generate(prompt, reuse=cache)`. A call
    takes over the tokens with which its prompts begin as the kept text does, and keeps its own
    first text. What is kept counts only for the same weights, adapters, scales and conditions: in
    any other state of the model, a call reads its whole prompt, as without a cache.

    Example:
        >>> from refiners_core.testing import tiny_language_model
        >>> model, cache = tiny_language_model(), PromptCache()
        >>> text = model.generate("Once upon", max_new_tokens=4, reuse=cache)
        >>> cache.length > len("Once upon")
        True
    """

    def __init__(self) -> None:
        self.tokens: tuple[int, ...] = ()
        """The tokens of the text that is kept."""
        self.reused = 0
        """The number of tokens that the last call took over."""
        self._pairs: tuple[Pair, ...] = ()
        self._state: State | None = None

    @property
    def length(self) -> int:
        """The number of tokens that are kept."""
        return len(self.tokens)

    def clear(self) -> None:
        """Forgets the text."""
        self.tokens, self._pairs, self._state = (), (), None

    def fill(self, cache: Cache, prompts: Sequence[Sequence[int]], state: "State | None") -> int:
        """Writes the tokens with which prompts begin as the kept text does into a new cache.

        Args:
            cache: The cache of the call, still empty.
            prompts: The tokens of each row; the last one of the shortest is never taken over.
            state: The state of the model; None if rows differ in it.

        Returns:
            The number of tokens.
        """
        self.reused = 0
        if state is None or self._state is None or not self._state.equals(state):
            return 0
        most = min(self.length, min(map(len, prompts)) - 1)
        count = next(
            (i for i in range(most) if any(row[i] != self.tokens[i] for row in prompts)), most
        )
        if count:
            for i, (k, v) in enumerate(self._pairs):
                rows = [x[:, :count].expand(len(prompts), -1, -1) for x in (k, v)]
                cache.past(i).joined(*rows)
            cache.advance(count)
        self.reused = count
        return count

    def keep(self, cache: Cache, tokens: Sequence[int], state: "State | None") -> None:
        """Keeps the first row of a call.

        Args:
            cache: The cache of the call.
            tokens: The tokens of the row, without padding; those at the end that the network has
                not read are left out.
            state: The state of the model; None if rows differ in it.
        """
        if state is None:
            return
        self._pairs = cache.first_row()
        read = self._pairs[0][0].shape[1] if self._pairs else 0
        self.tokens, self._state = tuple(tokens[:read]), state

    def __repr__(self) -> str:
        return f"PromptCache(length={self.length})"


class State:
    """Everything but the tokens on which keys and values depend.

    Args:
        model: The tree, with the layers of adapters.
        scales: The scale of each adapter that acts, by context key and path of a place.
        values: What adapters have put into the context.
    """

    def __init__(
        self,
        model: nn.Module,
        scales: Mapping[str, Mapping[str, float]],
        values: Mapping[str, Tensor],
    ) -> None:
        # Weak, so that a cache keeps no layer of an ejected adapter alive.
        self._layers: Final = [ref(layer) for layer in model.modules()]
        weights = (*model.parameters(), *model.buffers())
        self._weights: Final = [(ref(weight), _stamp(weight)) for weight in weights]
        self._scales: Final = scales
        self._values: Final = values

    @classmethod
    def of(cls, request: TextRequest, values: Mapping[str, Tensor]) -> "State | None":
        """Returns the state of a call; None if its rows differ in scales or conditions.

        Args:
            request: The call, with the scales of adapters.
            values: What adapters have put into the context.
        """
        by_place = request.row_scales
        numbers = [rows for places in by_place.values() for rows in places.values()]
        if any(len({*rows}) > 1 for rows in numbers) or not all(
            torch.equal(value, value[:1].expand_as(value)) for value in values.values()
        ):
            return None
        scales = {key: {path: rows[0] for path, rows in places.items()}
                  for key, places in by_place.items()}  # fmt: skip
        return cls(request.model, scales, {key: value[:1] for key, value in values.items()})

    def equals(self, other: "State") -> bool:
        """Whether both are of the same layers, weights and values."""
        layers = zip(self._layers, other._layers, strict=False)
        weights = zip(self._weights, other._weights, strict=False)
        return (
            len(self._layers) == len(other._layers)
            and all(a() is b() for a, b in layers)
            and len(self._weights) == len(other._weights)
            and all(a() is b() and x == y for (a, x), (b, y) in weights)
            and self._scales == other._scales
            and self._values.keys() == other._values.keys()
            and all(torch.equal(value, other._values[key]) for key, value in self._values.items())
        )


def _stamp(weight: Tensor) -> tuple[Any, ...]:
    """Returns what changes if a weight is moved or written to."""
    version = None if weight.is_inference() else weight._version
    return (weight.data_ptr(), weight.dtype, weight.device, version)
