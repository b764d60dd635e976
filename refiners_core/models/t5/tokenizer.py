"""T5's tokenizer, from its data file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer
from torch import Tensor

from refiners_core.errors import ModelError


class T5Tokenizer:
    """The unigram model of T5 (arXiv:1808.06226), as `tokenizer.json` describes it.

    Args:
        model: The tokenizer of the library, whose post-processor adds the end token.
        padding: The token that fills rows.
        end: The token after a text.

    Raises:
        ModelError: The vocabulary lacks a special token.
    """

    def __init__(self, model: Tokenizer, *, padding: str = "<pad>", end: str = "</s>") -> None:
        model.no_padding()
        model.no_truncation()
        self._model: Final = model
        self.padding: Final = self._special(padding)
        self.end: Final = self._special(end)
        self.size: Final = model.get_vocab_size()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a published `tokenizer.json`.

        Raises:
            ModelError: The file is missing, unreadable, or lacks a special token.
        """
        try:
            model = Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no narrower type
            raise ModelError(
                f"{path} is not a tokenizer: {error}.", hint="Give the tokenizer.json of a release."
            ) from error
        return cls(model)

    def tokens(self, text: str) -> list[int]:
        """Returns the ids of a text, with the end token."""
        ids = list(self._model.encode(text, add_special_tokens=True).ids)
        return ids if ids and ids[-1] == self.end else [*ids, self.end]

    def rows(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
        """Returns the ids of texts, and True for each that is not padding.

        Args:
            texts: The texts.
            length: The tokens of each row: shorter texts are padded, longer ones cut before the
                end token. By default rows are as long as the longest text.
        """
        ids = [self.tokens(text) for text in texts]
        if length is not None:
            ids = [row if len(row) <= length else [*row[: length - 1], self.end] for row in ids]
        width = length or max(map(len, ids))
        rows = torch.full((len(ids), width), self.padding, dtype=torch.long, device="cpu")
        for target, row in zip(rows, ids, strict=True):
            target[: len(row)] = torch.tensor(row, device="cpu")
        counts = torch.tensor([[len(row)] for row in ids], device="cpu")
        return rows, torch.arange(width, device="cpu") < counts

    def _special(self, token: str) -> int:
        number = self._model.token_to_id(token)
        if number is None:
            raise ModelError(
                f"the vocabulary of {self._model.get_vocab_size()} tokens has no {token!r}.",
                hint="Take the tokenizer.json of the release that has the encoder.",
            )
        return number
