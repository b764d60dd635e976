"""Requests to the writer: what is wished for, and the many ways to say it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from string import ascii_lowercase
from typing import Final

from refiners_playground.caption import article
from refiners_playground.description import PLACES, RELATIONS, Description, Thing
from refiners_playground.random_scene import COLOUR_NAMES
from refiners_playground.scene import FILLS, SHAPES, SIZES, is_held_out

SIZE_WORDS: Final = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium",),
    "large": ("large", "big", "huge"),
}
FILL_WORDS: Final = {fill: (fill,) for fill in FILLS} | {"plain": ("plain", "solid")}
GROUNDS: Final = (
    *("on {} background",) * 3,
    "on {} ground",
    "on {} field",
    "against {} background",
    "with {} background",
    "in front of {} background",
)
FRAMES: Final = (
    *("{}", "{}.", "Describe {}.", "describe {}") * 2,
    "Please describe {}.",
    "Describe {}, please.",
    "Can you describe {}?",
    "Write about {}.",
    "Write a sentence about {}.",
    "Tell me about {}.",
    "What does {} look like?",
    "A picture of {}",
    "a drawing of {}",
    "Describe a picture of {}.",
    "Describe a scene with {}.",
    "a scene with {}",
    "Draw {}.",
    "Paint {}.",
    "Imagine {}.",
    "Show me {}.",
    "Give me {}.",
    "I want {}.",
    "I would like to see {}.",
    "{}, please",
)
OPEN: Final = (
    *("Describe a scene.", "Describe a picture.", "Describe something.", "Write something."),
    *("Hello", "Hi", "Hello!", "anything", "a picture", "Tell me something.", "What do you see?"),
)
"""Requests that wish for nothing."""
EMPTY: Final = ("Describe a picture on {}.", "Describe {}.", "{}", "a picture with {}")
"""Requests that wish for a background only."""
CHANGES: Final = {
    "colour": ("Make it {}.", "Now in {}.", "The same in {}.", "Paint it {}."),
    "shape": ("Make it {}.", "Now {}.", "The same with {}."),
    "background": ("Make the background {}.", "The same on {} background.", "Now on {} ground."),
    "size": ("Make it {}.", "A {} one."),
}
"""The ways to change the last description."""
SYSTEM: Final = ("You describe scenes.", "Answer in one sentence.", "You are a helpful assistant.")


@dataclass(frozen=True)
class Request:
    """A request: its text, the facts that it wishes for, and a description that has them."""

    text: str
    wish: Description
    answer: Description


def random_request(random: Random, held_out: bool = False) -> Request:
    """Returns a random request.

    Args:
        random: The source of randomness.
        held_out: Whether the scene is a combination that is held out from training.
    """
    answer = _scene(random, held_out)
    chance = random.random()
    if chance < 0.06:
        answer = Description((_bare(answer.things[0]),), answer.background)
        ground = f"{article(answer.background)} background"
        if chance < 0.02:
            return Request(random.choice(OPEN), Description((Thing(),)), answer)
        text = random.choice(EMPTY).format(ground)
        return Request(text, Description((Thing(),), answer.background), answer)
    wish = Description(
        tuple(_left_open(thing, random) for thing in answer.things),
        answer.background if random.random() < 0.6 else "",
        answer.place,
        answer.relation,
    )
    phrase = _phrase(wish, random)
    text = random.choice(FRAMES).format(phrase)
    if random.random() < 0.3:
        text = text[0].upper() + text[1:]
    return Request(text, wish, answer)


def changed_request(last: Description, random: Random) -> Request:
    """Returns a request that changes one fact of the last description of a single object."""
    [thing] = last.things
    fact = random.choice(tuple(CHANGES))
    if fact == "size":
        value = random.choice([size for size in SIZES if size != thing.size])
        words = random.choice(SIZE_WORDS[value])
    elif fact == "shape":
        value = random.choice([shape for shape in SHAPES if shape != thing.shape])
        words = article(value)
    else:
        value = words = random.choice([name for name in COLOUR_NAMES if name not in last.colours])
    text = random.choice(CHANGES[fact])
    words = article(words) if text.endswith(("ground.", "background.")) else words
    if fact == "background" and text.startswith("Make"):
        words = value
    if fact == "background":
        answer = replace(last, background=value)
    else:
        answer = replace(last, things=(replace(thing, **{fact: value}),))
    return Request(text.format(words), answer, answer)


def _scene(random: Random, held_out: bool) -> Description:
    while True:
        count = 2 if random.random() < 0.15 else 1
        things = tuple(_thing(random, count) for _ in range(count))
        background = random.choice(COLOUR_NAMES)
        combinations = [is_held_out(t.shape, t.colour, background) for t in things]
        colours = [thing.colour for thing in things]
        if background not in colours and all(same == held_out for same in combinations):
            break
    place = random.choice(PLACES) if count == 1 and random.random() < 0.3 else ""
    relation = random.choice(RELATIONS) if count == 2 else ""
    return Description(things, background, place, relation)


def _thing(random: Random, count: int) -> Thing:
    return Thing(
        random.choice(SHAPES),
        random.choice(COLOUR_NAMES),
        random.choice(tuple(SIZES)) if random.random() < 0.4 / count else "",
        random.choice(FILLS) if random.random() < 0.3 / count else "",
    )


def _bare(thing: Thing) -> Thing:
    return Thing(thing.shape, thing.colour)


def _left_open(thing: Thing, random: Random) -> Thing:
    """Returns a wish for an object, whose shape or colour is sometimes left open."""
    chance = random.random()
    if chance < 0.08:
        return replace(thing, shape="")
    return replace(thing, colour="") if chance < 0.2 else thing


def _phrase(wish: Description, random: Random) -> str:
    nouns = [_noun(thing, random) for thing in wish.things]
    text = f" {wish.relation} ".join(nouns)
    if wish.place:
        place = wish.place
        if place == "in the centre":
            place = random.choice(("in the centre", "in the center", "in the middle"))
        text = f"{text} {place}"
    if not wish.background:
        return text
    if random.random() < 0.1:
        return f"{text}, {wish.background} background"
    return f"{text} {random.choice(GROUNDS).format(article(wish.background))}"


def _noun(thing: Thing, random: Random) -> str:
    noun = thing.shape or _other_noun(random)
    words = [
        random.choice(SIZE_WORDS[thing.size]) if thing.size else "",
        random.choice(FILL_WORDS[thing.fill]) if thing.fill else "",
    ]
    chance = random.random()
    if thing.colour and chance < 0.06:
        return f"{_joined(words, noun)} that is {thing.colour}"
    if thing.colour and chance < 0.1:
        return f"{_joined(words, noun)} in {thing.colour}"
    return _joined([*words, thing.colour], noun, has_article=chance < 0.9)


def _joined(words: Sequence[str], noun: str, has_article: bool = True) -> str:
    text = " ".join(word for word in (*words, noun) if word)
    return article(text) if has_article else text


def _other_noun(random: Random) -> str:
    """Returns a word for an object of any shape; sometimes a word that does not exist."""
    if random.random() < 0.7:
        return random.choice(("object", "shape", "thing", "figure"))
    return "".join(random.choices(ascii_lowercase, k=random.randint(2, 7)))
