"""Texts in rows of windows, as each text encoder reads them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from refiners_core.models.clip.tokenizer import ClipTokenizer
from refiners_core.models.clip.window import Windows


class Reading(NamedTuple):
    """The tokens of texts in rows of windows, and the texts that these make up."""

    ids: Int[Tensor, "windows tokens"]
    windows: Windows

    def with_empty(self, tokenizer: ClipTokenizer) -> "Reading":
        """Returns this reading with the empty texts against which words are weighted."""
        empty = tokenizer.windows("")[0].expand(self.windows.empty_rows, -1)
        return self._replace(ids=torch.cat([self.ids, empty]))


def readings(texts: Sequence[str], tokenizers: Sequence[ClipTokenizer]) -> list[Reading]:
    """Returns the windows of texts as each tokenizer reads them.

    All readings of a text have equally many windows: empty ones follow a shorter reading.

    Args:
        texts: The texts.
        tokenizers: A tokenizer for each text encoder.
    """
    parts = [[tokenizer.windows(text) for text in texts] for tokenizer in tokenizers]
    counts = [max(len(ids) for ids, _ in versions) for versions in zip(*parts, strict=True)]
    rows: list[tuple[Tensor, Tensor]] = []
    for tokenizer, read in zip(tokenizers, parts, strict=True):
        empty = tokenizer.windows("")
        filled = [
            torch.cat([part, *[blank] * (count - len(part))])
            for windows, count in zip(read, counts, strict=True)
            for part, blank in zip(windows, empty, strict=True)
        ]
        rows.append((torch.cat(filled[::2]), torch.cat(filled[1::2])))
    has_weights = any(bool((weights != 1).any()) for _, weights in rows)
    return [
        Reading(ids, Windows(counts, weights if has_weights else None)) for ids, weights in rows
    ]
