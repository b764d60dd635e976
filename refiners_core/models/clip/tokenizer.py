"""From words to the numbers that a CLIP text encoder knows."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Final, Self

import torch
from jaxtyping import Float, Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from refiners_core.errors import ModelError
from refiners_core.models.clip.prompt import broken_at, parse_weights
from refiners_core.models.clip.vocabulary import read_vocabulary


class PromptWarning(UserWarning):
    """A prompt says more than the text encoder can read."""


# Contractions, runs of letters, single digits, runs of other signs (arXiv:2103.00020, section 2.4,
# as released).
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORD_END: Final = "</w>"


class ClipTokenizer:
    """CLIP's byte-level byte-pair encoding (arXiv:2103.00020, section 2.4), lower case.

    Args:
        vocab: The number of each token.
        merges: The pairs that are joined, most frequent first.
        length: How many tokens a prompt has, start and end included.
        start: The token before a prompt.
        end: The token after it.
        padding: What fills the rest; the end token by default.

    Raises:
        ModelError: A special token is not in the vocabulary, or there is no room for a word.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        *,
        length: int,
        start: str = "<|startoftext|>",
        end: str = "<|endoftext|>",
        padding: str | None = None,
    ) -> None:
        padding = end if padding is None else padding
        for token in (start, end, padding):
            if token not in vocab:
                raise ModelError(
                    f"the vocabulary of {len(vocab)} tokens has no {token!r}.",
                    hint="Name its special tokens by start=, end= and padding=.",
                )
        if length < 3:
            raise ModelError(
                f"a prompt of {length} tokens has no room for a word.", hint="Try length=77."
            )
        self.length: Final = length
        self.size: Final = max(vocab.values()) + 1
        self.start: Final = vocab[start]
        self.end: Final = vocab[end]
        self.padding: Final = vocab[padding]
        self._words: dict[str, tuple[int, ...]] = {}
        try:
            pairs = models.BPE(
                vocab=dict(vocab),
                merges=list(merges),
                end_of_word_suffix=_WORD_END,
                unk_token=end,
            )
        except Exception as error:  # the library has no narrower type
            raise ModelError(
                f"vocabulary and merges do not suit each other: {error}.",
                hint="Take both files from one release.",
            ) from error
        self._model = Tokenizer(pairs)
        self._model.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        self._model.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self._model.decoder = decoders.ByteLevel()
        # Written out in a prompt these stand for themselves; in SDXL's second tokenizer so does
        # "!", its padding.
        self._model.add_special_tokens([start, end, padding])

    @classmethod
    def load(cls, folder: str | Path, length: int | None = None) -> Self:
        """Reads a published tokenizer folder.

        Args:
            folder: Holds `vocab.json` and `merges.txt`, or `tokenizer.json`, which newer libraries
                write in their place, and perhaps `tokenizer_config.json`.
            length: How many tokens the text encoder reads, where the configuration does not say.

        Raises:
            ModelError: A file is missing or unreadable, asks for what is not known here, or has no
                length.
        """
        found = read_vocabulary(Path(folder))
        length = found.length if found.length is not None else length
        if length is None:
            raise ModelError(
                f"{folder} does not say how long a prompt is.",
                hint="Pass length=, or set model_max_length.",
            )
        return cls(
            found.words,
            found.merges,
            length=length,
            start=found.start,
            end=found.end,
            padding=found.padding,
        )

    def with_words(self, words: Mapping[str, int]) -> "ClipTokenizer":
        """Returns this tokenizer with words of its own, each of which is so many tokens long.

        Their tokens are numbered downwards from -1, in the order of the words: below zero, since
        early text encoders know the end of a text by its number, the highest.

        Example:
            >>> signs = {"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
            >>> ClipTokenizer(signs, [], length=9).with_words({"<cat>": 2}).tokens("a <cat>")
            [0, -1, -2]
        """
        other = copy(self)
        first = -1
        other._words = {}
        for word, count in words.items():
            other._words[word] = tuple(range(first, first - count, -1))
            first -= count
        return other

    def tokens(self, text: str) -> list[int]:
        """Returns the tokens of a text of any length, without start, end and padding.

        Raises:
            ModelError: It is not Unicode: it has half a character.
        """
        if (place := broken_at(text)) is not None:
            raise ModelError(
                f"the text has half a character, {text[place]!a}, at position {place}.",
                hint='Mend it: text.encode("utf-8", "replace").decode().',
            )
        if not self._words:
            return self._model.encode(text, add_special_tokens=False).ids
        longest_first = sorted(self._words, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        found = [
            self._words[part]
            if part in self._words
            else self._model.encode(part, add_special_tokens=False).ids
            for part in parts
        ]
        return [token for part in found for token in part]

    def __call__(self, prompts: Sequence[str]) -> Int[Tensor, "rows tokens"]:
        """Returns a row of `length` tokens per prompt.

        Warns:
            PromptWarning: A prompt is too long; its end is cut off.
        """
        rows = [self._row(prompt) for prompt in prompts]
        return torch.tensor(rows, dtype=torch.long, device="cpu")

    def windows(
        self, prompt: str
    ) -> tuple[Int[Tensor, "windows tokens"], Float[Tensor, "windows tokens"]]:
        """Returns a prompt of any length as rows of `length` tokens, and how much each counts.

        A window ends where a word does, if one ends in it. What `(text:number)` means is said by
        `parse_weights` in `refiners_core.models.clip.prompt`.
        """
        room = self.length - 2
        left = [
            (token, part.weight)
            for part in parse_weights(prompt)
            for token in self.tokens(part.text)
        ]
        rows: list[list[tuple[int, float]]] = []
        while left or not rows:
            ends = [i + 1 for i, (token, _) in enumerate(left[:room]) if self._is_end(token)]
            cut = len(left) if len(left) <= room else ends[-1] if ends else room
            row = [(self.start, 1.0), *left[:cut], (self.end, 1.0)]
            rows.append(row + [(self.padding, 1.0)] * (self.length - len(row)))
            left = left[cut:]
        return (
            torch.tensor(
                [[token for token, _ in row] for row in rows], dtype=torch.long, device="cpu"
            ),
            torch.tensor(
                [[weight for _, weight in row] for row in rows], dtype=torch.float32, device="cpu"
            ),
        )

    def _is_end(self, token: int) -> bool:
        return token < 0 or str(self._model.id_to_token(token)).endswith(_WORD_END)

    def _row(self, prompt: str) -> list[int]:
        tokens = self.tokens(prompt)
        room = self.length - 2
        if len(tokens) > room:
            lost = (
                self._model.decode([token for token in tokens[room:] if token >= 0])
                .replace(_WORD_END, " ")
                .strip()
            )
            warnings.warn(
                f"the prompt has {len(tokens)} tokens, {len(tokens) - room} more than the {room} "
                f"that are read; this is cut off: {lost!r}",
                PromptWarning,
                stacklevel=4,
            )
        row = [self.start, *tokens[:room], self.end]
        return row + [self.padding] * (self.length - len(row))

    def reads_like(self, other: "ClipTokenizer") -> bool:
        """Whether another tokenizer makes the same tokens of every text, padding aside."""
        ours, theirs = json.loads(self._model.to_str()), json.loads(other._model.to_str())
        return ours["model"] == theirs["model"] and self.length == other.length

    def __repr__(self) -> str:
        return f"ClipTokenizer({self.size} tokens, length={self.length})"
