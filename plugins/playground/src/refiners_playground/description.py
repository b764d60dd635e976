"""The sentences of the writer: their grammar, and what they state about a scene.

A text is one or more sentences such as `Picture a small red circle on the left on a blue
background.` All words but those of other styles are words of captions, so a text can be drawn.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from refiners_playground.caption import article
from refiners_playground.pattern import FILLS
from refiners_playground.scene import COLOURS, SHAPES, SIZES

PLACES: Final = (
    "in the centre",
    *(f"on the {side}" for side in ("left", "right")),
    *(f"at the {side}" for side in ("top", "bottom")),
    *(f"in the {row} {column} corner" for row in ("top", "bottom") for column in ("left", "right")),
)
RELATIONS: Final = ("left of", "right of", "above", "below", "and")
PLAIN, ARCHAIC, STORY = "picture", "behold", "once upon a time there was"
"""The openings of a sentence."""


@dataclass(frozen=True)
class Thing:
    """An object; a fact that is left open is an empty text."""

    shape: str = ""
    colour: str = ""
    size: str = ""
    fill: str = ""

    def __str__(self) -> str:
        words = (self.size, self.fill, self.colour, self.shape)
        return article(" ".join(word for word in words if word))


@dataclass(frozen=True)
class Description:
    """The facts of a scene; a fact that is left open is an empty text."""

    things: tuple[Thing, ...]
    background: str = ""
    place: str = ""
    """The place of a single object."""
    relation: str = ""
    """The place of the first of two objects, relative to the second."""

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours that it names, that of the background included."""
        named = (*(thing.colour for thing in self.things), self.background)
        return tuple(colour for colour in named if colour)

    def holds(self, wish: "Description") -> bool:
        """Whether it states every fact of a wish, which may leave facts open."""
        return len(self.things) == len(wish.things) and all(
            wished in ("", fact) for fact, wished in zip(_facts(self), _facts(wish), strict=True)
        )


@dataclass(frozen=True)
class Sentence:
    """A description in words.

    Its opening is `picture`, `behold` or `once upon a time there was`. The second is archaic: it
    has `upon` for `on`, and ends with an exclamation mark.
    """

    description: Description
    opening: str = PLAIN
    is_background_first: bool = False

    def __str__(self) -> str:
        described = self.description
        things = f" {described.relation} ".join(map(str, described.things))
        rest = " ".join(part for part in (self.opening, things, described.place) if part)
        ground = ""
        if described.background:
            on = "upon" if self.opening == ARCHAIC else "on"
            ground = f"{on} {article(described.background)} background"
        parts = (ground, rest) if self.is_background_first else (rest, ground)
        text = (", " if self.is_background_first else " ").join(part for part in parts if part)
        return text[0].upper() + text[1:] + ("!" if self.opening == ARCHAIC else ".")


def read_sentences(text: str) -> tuple[Sentence, ...] | None:
    """Parses a text; returns None if it is not one or more sentences of the grammar.

    Example:
        >>> [sentence] = read_sentences("Picture a red circle on a blue background.")
        >>> sentence.description.background
        'blue'
    """
    sentences: list[Sentence] = []
    for part in re.findall(r"[^.!]*[.!]|[^.!]+\Z", text.strip()):
        sentence = _read(part.strip())
        if sentence is None or str(sentence) != part.strip():
            return None
        sentences.append(sentence)
    return tuple(sentences) or None


def _read(text: str) -> Sentence | None:
    """Parses a sentence, its article and its style apart, which writing it again checks."""
    match = _SENTENCE.fullmatch(text.lower())
    if match is None:
        return None
    facts = match.groupdict(default="")
    count = 2 if facts["shape2"] else 1
    things = [
        Thing(*(facts[f"{name}{number}"] for name in ("shape", "colour", "size", "fill")))
        for number in range(1, count + 1)
    ]
    background = facts["before"] or facts["behind"]
    described = Description(tuple(things), background, facts["place"], facts["relation"])
    return Sentence(described, facts["opening"], bool(facts["before"]))


def _facts(description: Description) -> tuple[str, ...]:
    things = (
        fact
        for thing in description.things
        for fact in (thing.shape, thing.colour, thing.size, thing.fill)
    )
    return (*things, description.background, description.place, description.relation)


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words))


def _thing(number: int) -> str:
    return (
        rf"an? (?:(?P<size{number}>{_any(SIZES)}) )?(?:(?P<fill{number}>{_any(FILLS)}) )?"
        rf"(?P<colour{number}>{_any(COLOURS)}) (?P<shape{number}>{_any(SHAPES)})"
    )


def _ground(name: str) -> str:
    return rf"(?:up)?on an? (?P<{name}>{_any(COLOURS)}) background"


_SENTENCE: Final = re.compile(
    rf"(?:{_ground('before')}, )?(?P<opening>{_any((PLAIN, ARCHAIC, STORY))}) {_thing(1)}"
    rf"(?: (?P<relation>{_any(RELATIONS)}) {_thing(2)}| (?P<place>{_any(PLACES)}))?"
    rf"(?: {_ground('behind')})?[.!]"
)
