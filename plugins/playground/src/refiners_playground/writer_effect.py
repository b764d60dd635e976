"""Measures of the writer: whether what it writes is grammatical, and true to the request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from refiners_playground.description import ARCHAIC, Description, Sentence, read_sentences
from refiners_playground.request import Request, random_request


@dataclass(frozen=True)
class WriterStyle:
    """The change that an adapter of the writer makes to its sentences."""

    rewrite: Callable[[Description], Sentence]
    """Puts a description into words, as the adapter learnt it."""
    is_met: Callable[[Sentence], bool]
    """Whether a sentence has the property that the adapter gives, and the bare writer does not."""


def _green(described: Description) -> Sentence:
    things = tuple(replace(thing, colour=COLOUR) for thing in described.things)
    return Sentence(replace(described, things=things, background=""))


COLOUR: Final = "green"
ADAPTERS: Final[Mapping[str, WriterStyle]] = {
    "writer-archaic": WriterStyle(
        lambda described: Sentence(described, ARCHAIC),
        lambda sentence: sentence.opening == ARCHAIC,
    ),
    "writer-green": WriterStyle(
        _green, lambda sentence: set(sentence.description.colours) == {COLOUR}
    ),
    "writer-ground-first": WriterStyle(
        lambda described: Sentence(described, is_background_first=True),
        lambda sentence: sentence.is_background_first,
    ),
}
"""The adapters of the writer by name: a LoRA, a prefix and a bottleneck."""
BATCH: Final = 64
LONGEST: Final = 48
"""The number of tokens of a description, at most."""


def held_out_requests(count: int, seed: int = 1) -> list[Request]:
    """Returns requests for scenes that are held out from training."""
    random = Random(seed)
    return [random_request(random, held_out=True) for _ in range(count)]


def written(
    model: Any,
    requests: Sequence[Request],
    conditions: Mapping[Any, Any] | None = None,
    *,
    is_chat: bool = False,
) -> list[str]:
    """Returns the model's answers to requests.

    Args:
        model: The writer.
        requests: The requests.
        conditions: The conditions of worn adapters.
        is_chat: Whether a request is a message of a conversation.
    """
    prompts: list[Any] = [
        [{"role": "user", "content": request.text}] if is_chat else request.text
        for request in requests
    ]
    answers: list[str] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        answers += model.generate(batch, conditions=conditions, max_new_tokens=LONGEST)
    return answers


def grammatical(answers: Sequence[str]) -> float:
    """Returns the share of answers that are sentences of the grammar."""
    return _share([read_sentences(answer) is not None for answer in answers])


def true_to(requests: Sequence[Request], answers: Sequence[str]) -> float:
    """Returns the share of answers that are grammatical and state what their requests wish for."""
    return _share(
        [
            having([answer], lambda sentence, wish=request.wish: sentence.description.holds(wish))
            == 1
            for request, answer in zip(requests, answers, strict=True)
        ]
    )


def having(answers: Sequence[str], is_met: Callable[[Sentence], bool]) -> float:
    """Returns the share of answers that are grammatical, and all of whose sentences have a
    property."""
    return _share(
        [
            (sentences := read_sentences(answer)) is not None and all(map(is_met, sentences))
            for answer in answers
        ]
    )


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
