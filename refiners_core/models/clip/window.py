"""Windows: the rows in which a text encoder reads texts, and the texts that they make up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core.models.clip.prompt import apply_weights
from refiners_core.tree.chain import Chain
from refiners_core.tree.combinators import Identity
from refiners_core.tree.context import Context
from refiners_core.tree.layer import Layer

WINDOWS: Final = "text_encoder.windows"
"""The context key of the windows that are read, a `Windows`; absent where each row is a text."""
JOINED: Final = "text_encoder.joined"
"""The context key that is set once windows are joined."""


@dataclass(frozen=True)
class Windows:
    """The windows of several texts: one row each, those of a text one after the other.

    If a word is weighted, rows of an empty text follow, against which it is weighted: one, or one
    for each text if adapters have values for each.
    """

    counts: Sequence[int]
    """The number of windows of each text."""
    weights: Float[Tensor, "windows tokens"] | None = None
    """The weight of each token; None if all are 1."""
    is_silent: Sequence[bool] = ()
    """Whether the features of each text are zeros; empty if none are."""
    rows: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Values of adapters by context key, with a row for each text."""

    @property
    def owners(self) -> list[int]:
        """The text that each window belongs to."""
        return [text for text, count in enumerate(self.counts) for _ in range(count)]

    @property
    def empty_rows(self) -> int:
        """The number of empty texts that follow the windows."""
        return 0 if self.weights is None else len(self.counts) if self.rows else 1

    @property
    def tiles(self) -> list[int]:
        """How often the tokens of each text are repeated, so that all texts are equally long.

        Repeating the tokens leaves attention to them unchanged.
        """
        length = math.lcm(*self.counts)
        return [length // count for count in self.counts]

    def spread(self, rows: Tensor) -> Tensor:
        """Returns rows for windows, and for the empty texts after them, from rows for texts."""
        owners = [*self.owners, *range(self.empty_rows)]
        return rows if owners == [*range(len(rows))] else rows[owners]

    def joined(
        self, features: Float[Tensor, "rows tokens width"]
    ) -> Float[Tensor, "texts all_tokens width"]:
        """Returns the weighted features of each text, from those of its windows."""
        owners = self.owners
        if self.weights is not None:
            empty = features[len(owners) :]
            empty = empty[owners] if len(empty) > 1 else empty
            features = apply_weights(features[: len(owners)], self.weights, empty)
        return self._silenced(self.tiled(features))

    def tiled(self, windows: Tensor) -> Tensor:
        """Returns a row for each text, `(texts, tokens, ...)`, from the rows of windows."""
        if all(count == 1 for count in self.counts):
            return windows
        parts = zip(windows.split(list(self.counts)), self.tiles, strict=True)
        return torch.stack([torch.cat([part.flatten(0, 1)] * times) for part, times in parts])

    def first(self, pooled: Float[Tensor, "rows width"]) -> Float[Tensor, "texts width"]:
        """Returns the pooled features of the first window of each text."""
        owners = self.owners
        return self._silenced(pooled[[owners.index(text) for text in range(len(self.counts))]])

    def _silenced(self, features: Tensor) -> Tensor:
        if not any(self.is_silent):
            return features
        is_filled = ~torch.tensor(self.is_silent, dtype=torch.bool, device=features.device)
        return features * is_filled.view(-1, *[1] * (features.ndim - 1))


class SpreadRows(Layer):
    """Lays out the values of adapters for the windows that the layers after it read."""

    def run(self, context: Context, *inputs: Any) -> Any:
        windows: Windows | None = context.get(WINDOWS)
        if windows is not None:
            for key, rows in windows.rows.items():
                context[key] = windows.spread(rows)
        return inputs[0]


class JoinWindows(Layer):
    """Joins the windows of each text, weights its words, and lays out the values of adapters for
    the texts again."""

    def run(self, context: Context, *inputs: Any) -> Float[Tensor, "texts tokens width"]:
        windows: Windows | None = context.get(WINDOWS)
        if windows is None:
            return inputs[0]
        for key, rows in windows.rows.items():
            context[key] = rows
        context[JOINED] = True
        return windows.joined(inputs[0])


class TextOutput(Chain):
    """The end of a text encoder: takes features of windows and returns those of whole texts."""

    def __init__(self) -> None:
        super().__init__(join=JoinWindows(), output=Identity())
