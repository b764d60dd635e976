"""CLIP's tokenizer."""

import json
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import groupby
from pathlib import Path
from typing import Final, Self

import torch
from jaxtyping import Float, Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from refiners_core.errors import ModelError
from refiners_core.models.clip.added_word import AddedWords
from refiners_core.models.clip.prompt import broken_at, parse_weights
from refiners_core.models.clip.vocabulary import read_vocabulary


class PromptWarning(UserWarning):
    """A prompt is longer than the text encoder can read."""


# Contractions, runs of letters, single digits, runs of other characters (arXiv:2103.00020,
# section 2.4, as released).
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORD_END: Final = "</w>"


class ClipTokenizer:
    """CLIP's byte-level byte-pair encoding (arXiv:2103.00020, section 2.4), lower case.

    Args:
        vocab: The id of each token.
        merges: The pairs that are joined, most frequent first.
        length: The number of tokens of a prompt, with start, end and padding.
        start: The token before a prompt.
        end: The token after a prompt.
        padding: The token that fills the rest; the end token by default.

    Raises:
        ModelError: A special token is not in the vocabulary, or `length` is less than 3.
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
        self.padding: int = vocab[padding]
        self._words = AddedWords({})
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
        # In a prompt these are single tokens; in SDXL's second tokenizer so is "!", its padding.
        self._model.add_special_tokens([start, end, padding])

    @classmethod
    def load(cls, folder: str | Path, length: int | None = None) -> Self:
        """Reads a published tokenizer folder.

        Args:
            folder: The folder, with `vocab.json` and `merges.txt`, or with `tokenizer.json`, which
                newer libraries write, and perhaps with `tokenizer_config.json`.
            length: The number of tokens of a prompt, for a configuration without it.

        Raises:
            ModelError: A file is missing, unreadable or has an unsupported setting, or the length
                is unknown.
        """
        vocabulary = read_vocabulary(Path(folder))
        length = vocabulary.length if vocabulary.length is not None else length
        if length is None:
            raise ModelError(
                f"{folder} does not name the length of a prompt.",
                hint="Pass length=, or set model_max_length.",
            )
        return cls(
            vocabulary.words,
            vocabulary.merges,
            length=length,
            start=vocabulary.start,
            end=vocabulary.end,
            padding=vocabulary.padding,
        )

    def padded_with(self, padding: int) -> "ClipTokenizer":
        """Returns this tokenizer with another padding token, which is a single token in prompts.

        SDXL's second tokenizer is published with the padding "!", so it reads each "!" of a prompt
        as that token.

        Args:
            padding: The id of the padding token.

        Example:
            >>> vocab = {"!": 0, "!</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
            >>> tokenizer = ClipTokenizer(vocab, [], length=9)
            >>> tokenizer.tokens("!"), tokenizer.padded_with(0).tokens("!")
            ([1], [0])
        """
        other = copy(self)
        other._model = Tokenizer.from_str(self._model.to_str())
        other._model.add_special_tokens([self.text_of(padding)])
        other.padding = padding
        return other

    def with_words(self, words: Mapping[str, int | Sequence[int]]) -> "ClipTokenizer":
        """Returns this tokenizer with more words, each of so many tokens.

        The ids of their tokens count down from -1, in the order of the words. They are below zero
        because early text encoders find the end of a text by the highest id.

        Args:
            words: The number of tokens of each word, or their ids, all of which are below zero.

        Example:
            >>> vocab = {"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
            >>> ClipTokenizer(vocab, [], length=9).with_words({"<cat>": 2}).tokens("a <cat>")
            [0, -1, -2]
        """
        other = copy(self)
        ids: dict[str, Sequence[int]] = {}
        first = -1
        for word, tokens in words.items():
            if isinstance(tokens, int):
                ids[word] = [*range(first, first - tokens, -1)]
                first -= tokens
            else:
                ids[word] = tokens
        other._words = AddedWords(ids)
        return other

    def tokens(self, text: str) -> list[int]:
        """Returns the tokens of a text of any length, without start, end and padding.

        Raises:
            ModelError: The text has half a character, so it is not Unicode.
        """
        if (position := broken_at(text)) is not None:
            raise ModelError(
                f"the text has half a character, {text[position]!a}, at position {position}.",
                hint='Mend it: text.encode("utf-8", "replace").decode().',
            )
        tokens: list[int] = []
        for part in self._words.split(text):
            if isinstance(part, str):
                tokens += self._model.encode(part, add_special_tokens=False).ids
            else:
                tokens += part
        return tokens

    def __call__(self, prompts: Sequence[str]) -> Int[Tensor, "rows tokens"]:
        """Returns a row of `length` tokens for each prompt.

        Warns:
            PromptWarning: A prompt is too long, so its end is cut off.
        """
        rows = [self._row(prompt) for prompt in prompts]
        return torch.tensor(rows, dtype=torch.long, device="cpu")

    def windows(
        self, prompt: str
    ) -> tuple[Int[Tensor, "windows tokens"], Float[Tensor, "windows tokens"]]:
        """Returns a prompt of any length as rows of `length` tokens, and the weight of each token.

        A window ends at the end of a word, unless one word fills it; the tokens of a word that an
        adapter brings stay together. `parse_weights` in
        `refiners_core.models.clip.prompt` explains the weights, `(text:number)`.
        """
        room = self.length - 2
        rest = [
            (token, part.weight)
            for part in parse_weights(prompt)
            for token in self.tokens(part.text)
        ]
        rows: list[list[tuple[int, float]]] = []
        while rest or not rows:
            ends = [i + 1 for i, (token, _) in enumerate(rest[:room]) if self._is_end(token)]
            cut = len(rest) if len(rest) <= room else ends[-1] if ends else room
            row = [(self.start, 1.0), *rest[:cut], (self.end, 1.0)]
            rows.append(row + [(self.padding, 1.0)] * (self.length - len(row)))
            rest = rest[cut:]
        return (
            torch.tensor(
                [[token for token, _ in row] for row in rows], dtype=torch.long, device="cpu"
            ),
            torch.tensor(
                [[weight for _, weight in row] for row in rows], dtype=torch.float32, device="cpu"
            ),
        )

    def text_of(self, token: int) -> str:
        """Returns the text of a token."""
        return str(self._model.id_to_token(token))

    def _is_end(self, token: int) -> bool:
        return self._words.is_end(token) or (token >= 0 and self.text_of(token).endswith(_WORD_END))

    def _row(self, prompt: str) -> list[int]:
        tokens = self.tokens(prompt)
        room = self.length - 2
        if len(tokens) > room:
            cut_off = self._text(tokens[room:])
            warnings.warn(
                f"the prompt has {len(tokens)} tokens, {len(tokens) - room} more than the {room} "
                f"that are read; this is cut off: {cut_off!r}",
                PromptWarning,
                stacklevel=4,
            )
        row = [self.start, *tokens[:room], self.end]
        return row + [self.padding] * (self.length - len(row))

    def _text(self, tokens: Sequence[int]) -> str:
        parts: list[str] = []
        for is_word, group in groupby(tokens, lambda token: token < 0):
            ids = [*group]
            parts += (
                [self._words.word_of(token) for token in ids if self._words.is_end(token)]
                if is_word
                else [self._model.decode(ids).replace(_WORD_END, " ").strip()]
            )
        return " ".join(parts)

    def reads_like(self, other: "ClipTokenizer") -> bool:
        """Whether another tokenizer returns the same tokens for every text, up to padding."""
        ours, theirs = json.loads(self._model.to_str()), json.loads(other._model.to_str())
        return ours["model"] == theirs["model"] and self.length == other.length

    def __repr__(self) -> str:
        return f"ClipTokenizer({self.size} tokens, length={self.length})"
