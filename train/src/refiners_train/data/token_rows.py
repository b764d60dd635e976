"""Texts as tokens, and which of them are learnt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refiners_core.models.decoder import LanguageModel, TextTokenizer
from refiners_train.data.data_error import DataError
from refiners_train.data.example import TextExample, TextSource
from refiners_train.data.fingerprint import fingerprint_of

IGNORED: Final = -100
"""The label of tokens that are not learnt."""
ASSISTANT: Final = "assistant"


@dataclass(frozen=True)
class TokenBatch:
    """Texts in rows, padded at the end."""

    ids: Int[Tensor, "rows tokens"]
    """The tokens of each text."""
    labels: Int[Tensor, "rows tokens"]
    """The same where they are learnt, and `IGNORED` elsewhere."""
    weights: Float[Tensor, "rows"]
    """The weight of each row in the loss."""

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, start: int, end: int) -> Self:
        """Returns the rows from `start` up to `end`."""
        ids, labels = self.ids[start:end], self.labels[start:end]
        return type(self)(ids, labels, self.weights[start:end])

    def to(self, device: torch.device) -> Self:
        """Returns the batch on a device."""
        parts = (self.ids, self.labels, self.weights)
        return type(self)(*(part.to(device, non_blocking=True) for part in parts))


class TokenRows:
    """A source of tokens for a language model.

    A text begins with the tokens that the tokenizer puts before every text, and ends with the token
    that ends texts. A conversation has what its template writes, and nothing is added. Texts are
    not packed: every row holds one. Longer ones are cut at the end.

    Args:
        source: The texts.
        model: The model, for its tokenizer and the token that ends texts.
        completions_only: Whether only completions and answers are learnt, not prompts.
        max_tokens: The length to which texts are cut; by default that of the model.

    Raises:
        DataError: The model has no tokenizer.
    """

    def __init__(
        self,
        source: TextSource,
        model: LanguageModel,
        *,
        completions_only: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        if model.tokenizer is None:
            raise DataError(
                f"{model.base} has no tokenizer, so texts cannot be read.",
                hint="Load a folder that has tokenizer.json.",
            )
        self._source: Final = source
        self._tokenizer: Final[TextTokenizer] = model.tokenizer
        self._ends: Final = model.defaults.ends
        self._completions_only: Final = completions_only
        self._longest: Final = min(max_tokens or model.config.places, model.config.places)

    @property
    def fingerprint(self) -> str:
        """Changes with the texts and with how they become tokens."""
        settings = [self._completions_only, self._longest, [*self._ends]]
        return fingerprint_of([self._source.fingerprint, self._tokenizer.model.to_str(), settings])

    def __len__(self) -> int:
        return len(self._source)

    def example(self, index: int, epoch: int) -> TextExample:
        """Returns a text."""
        return self._source.example(index, epoch)

    def batch(self, indices: Sequence[int], epoch: int) -> TokenBatch:
        """Returns texts as tokens, padded to the longest."""
        examples = [self.example(index, epoch) for index in indices]
        rows = [self.tokens(example) for example in examples]
        width = max(len(ids) for ids, _ in rows)
        padding = self._ends[0] if self._ends else 0
        ids = torch.full((len(rows), width), padding)
        labels = torch.full((len(rows), width), IGNORED)
        for row, (tokens, are_learnt) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            learnt = torch.tensor(are_learnt)
            labels[row, : len(tokens)] = torch.where(learnt, ids[row, : len(tokens)], IGNORED)
        return TokenBatch(ids, labels, torch.tensor([example.weight for example in examples]))

    def tokens(self, example: TextExample) -> tuple[list[int], list[bool]]:
        """Returns the tokens of a text, and whether each is learnt.

        Raises:
            DataError: The conversation cannot be split into its answers.
        """
        if example.messages is not None:
            ids, are_learnt = self._conversation(example.messages)
        else:
            ids, are_learnt = self._text(example.text, example.completion_start)
        return ids[: self._longest], are_learnt[: self._longest]

    def _text(self, text: str, start: int | None) -> tuple[list[int], list[bool]]:
        ids, count = self._tokenizer.tokens(text), 0
        if start is not None:
            prompt = self._tokenizer.tokens(text[:start])
            if ids[: len(prompt)] != prompt:
                # Where the tokens of the prompt would join those of the completion, they are kept
                # apart: a generation reads the prompt alone.
                completion = self._tokenizer.model.encode(text[start:], add_special_tokens=False)
                ids = prompt + completion.ids
            count = len(prompt) if self._completions_only else 0
        if self._ends and ids[-1] not in self._ends:
            ids = [*ids, self._ends[0]]
        return ids, [position >= count for position in range(len(ids))]

    def _conversation(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[bool]]:
        if self._tokenizer.chat is None:
            raise DataError(
                "the model has no chat template, so conversations cannot be trained on.",
                hint="Write `prompt` and `completion` in place of `messages`.",
            )
        template, special = self._tokenizer.chat, self._tokenizer.special
        text = template.whole(messages, special)
        # The template writes the special tokens itself.
        encoded = self._tokenizer.model.encode(text, add_special_tokens=False)
        if not self._completions_only:
            return list(encoded.ids), [True] * len(encoded.ids)
        answers: list[tuple[int, int]] = []
        for number, message in enumerate(messages):
            if message["role"] == ASSISTANT:
                begun = template.rendered(messages[:number], special)
                ended = template.whole(messages[: number + 1], special)
                if not (text.startswith(begun) and text.startswith(ended)):
                    raise DataError(
                        "the chat template writes earlier messages differently once an answer "
                        "follows, so the answers cannot be found in the text.",
                        hint="Give each answer a row of its own, as `prompt` and `completion`.",
                    )
                answers.append((len(begun), len(ended)))
        return list(encoded.ids), [
            any(first <= start and end <= last for first, last in answers) and end > start
            for start, end in encoded.offsets
        ]
