"""Batches of texts for the writer: requests and their answers, conversations, and stories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from refiners_playground.description import STORY, Description, Sentence
from refiners_playground.request import SYSTEM, changed_request, random_request
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from refiners_core.models.decoder import TextTokenizer

Style = Callable[[Description], Sentence]
CONVERSATIONS, STORIES, CHATS = 0.25, 0.06, 0.5
"""The shares of batches with conversations, of texts without a request, and of requests that are
messages of a chat."""
IGNORED = -100


@dataclass(frozen=True)
class Texts:
    """Tokens of texts `(rows, tokens)`, and the same where they are to be learnt, else -100."""

    ids: Tensor
    labels: Tensor


class Lesson:
    """Makes batches, in which every answer has one style.

    Args:
        tokenizer: The tokenizer of the writer.
        style: Puts the description that answers a request into words.
        batch: The number of texts in a batch; conversations are a third as many.
        stories: The share of texts without a request.
        chats: The share of other texts that are messages of a chat.
        conversations: The share of batches with conversations.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        style: Style = Sentence,
        batch: int = 64,
        stories: float = STORIES,
        chats: float = CHATS,
        conversations: float = CONVERSATIONS,
    ) -> None:
        self.tokenizer = tokenizer
        self.stories, self.chats, self.conversations = stories, chats, conversations
        self.style = style
        self.batch = batch
        [self.end] = tokenizer.model.encode("<|end|>", add_special_tokens=False).ids

    def sample(self, random: Random) -> Texts:
        """Returns a random batch."""
        if random.random() < self.conversations:
            return self._padded([self._conversation(random) for _ in range(self.batch // 3)])
        return self._padded([self._text(random) for _ in range(self.batch)])

    def loss(self, decoder: nn.Module, random: Random) -> Tensor:
        """Returns the loss of a random batch."""
        texts = self.sample(random)
        logits = decoder(texts.ids[:, :-1])
        return cross_entropy(
            logits.flatten(0, 1).float(), texts.labels[:, 1:].flatten(), ignore_index=IGNORED
        )

    def _text(self, random: Random) -> list[tuple[list[int], bool]]:
        request = random_request(random)
        if random.random() < self.stories:
            sentence = self.style(request.answer)
            if random.random() < 0.7:
                sentence = Sentence(request.answer, STORY)
            tokens = self.tokenizer.tokens(str(sentence))
            return [(tokens, True), ([self.end], True)]
        if random.random() < self.chats:
            return self._messages(random, [(request.text, request.answer)])
        return [(self.tokenizer.tokens(request.text), False), self._answer(request.answer)]

    def _conversation(self, random: Random) -> list[tuple[list[int], bool]]:
        request = random_request(random)
        turns = [(request.text, request.answer)]
        for _ in range(random.randint(1, 3)):
            last = turns[-1][1]
            if len(last.things) == 1 and random.random() < 0.7:
                request = changed_request(last, random)
            else:
                request = random_request(random)
            turns.append((request.text, request.answer))
        return self._messages(random, turns)

    def _messages(
        self, random: Random, turns: Sequence[tuple[str, Description]]
    ) -> list[tuple[list[int], bool]]:
        messages: list[dict[str, Any]] = []
        if random.random() < 0.2:
            messages.append({"role": "system", "content": random.choice(SYSTEM)})
        parts: list[tuple[list[int], bool]] = []
        done = 0
        for text, answer in turns:
            messages.append({"role": "user", "content": text})
            tokens = self.tokenizer.chat_tokens(messages)
            parts += [(tokens[done:], False), self._answer(answer)]
            messages.append({"role": "assistant", "content": str(self.style(answer))})
            done = len(tokens) + len(parts[-1][0])
        return parts

    def _answer(self, answer: Description) -> tuple[list[int], bool]:
        text = str(self.style(answer))
        return [*self.tokenizer.model.encode(text, add_special_tokens=False).ids, self.end], True

    def _padded(self, rows: Sequence[Sequence[tuple[list[int], bool]]]) -> Texts:
        length = max(sum(len(tokens) for tokens, _ in row) for row in rows)
        ids = torch.full((len(rows), length), self.end)
        labels = torch.full((len(rows), length), IGNORED)
        for index, row in enumerate(rows):
            start = 0
            for tokens, is_learnt in row:
                part = slice(start, start + len(tokens))
                ids[index, part] = torch.tensor(tokens)
                if is_learnt:
                    labels[index, part] = ids[index, part]
                start += len(tokens)
        return Texts(ids, labels)
