"""Requests to the writer: what is wished for, and the many ways to say it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from string import ascii_lowercase
from typing import Final

from refiners_playground.caption import article
from refiners_playground.description import PLACES, RELATIONS, Description, Thing
from refiners_playground.pattern import FILLS
from refiners_playground.random_scene import COLOUR_NAMES
from refiners_playground.scene import SHAPES, SIZES, is_held_out

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
COLOURED: Final = (
    "{}",
    "something {}",
    "Something in {}.",
    "anything {}",
    "Describe something {}.",
)
"""Requests that wish for a colour only."""
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
    scene = _scene(random, held_out)
    chance = random.random()
    if chance < 0.02:
        return _answered(random.choice(OPEN), Description((Thing(),)), random)
    if chance < 0.06:
        ground = f"{article(scene.background)} {random.choice(('background', 'ground'))}"
        text = random.choice(EMPTY).format(ground)
        return _answered(text, Description((Thing(),), scene.background), random)
    if chance < 0.10:
        colour = scene.things[0].colour
        return _answered(
            random.choice(COLOURED).format(colour), Description((Thing(colour=colour),)), random
        )
    is_full = scene.background in [thing.colour for thing in scene.things]
    wish = Description(
        tuple(thing if is_full else _left_open(thing, random) for thing in scene.things),
        scene.background if is_full or random.random() < 0.6 else "",
        scene.place,
        scene.relation,
    )
    text = random.choice(FRAMES).format(_phrase(wish, random))
    if random.random() < 0.3:
        text = text[0].upper() + text[1:]
    return _answered(text, wish, random)


def completed(wish: Description, random: Random | None = None) -> Description:
    """Returns a wish with a choice for each shape, colour and background that it leaves open.

    Args:
        wish: The wish.
        random: The source of a random choice; without one, each choice is the usual one: the shape
            and the colour follow from each other, and the background differs from all colours.
    """
    things: list[Thing] = []
    for thing in wish.things:
        shape, colour = thing.shape, thing.colour
        taken = {other.colour for other in (*wish.things, *things)} | {wish.background}
        if random is not None:
            shape = shape or random.choice(SHAPES)
            colour = colour or random.choice([name for name in COLOUR_NAMES if name not in taken])
        shape = shape or _SHAPE_OF.get(colour, "circle")
        usual = (_COLOUR_OF[shape], _GROUND_OF.get(wish.background, ""), *COLOUR_NAMES)
        colour = colour or next(name for name in usual if name and name not in taken)
        things.append(replace(thing, shape=shape, colour=colour))
    colours = [thing.colour for thing in things]
    free = [name for name in (_GROUND_OF[colours[0]], *_GROUND_OF) if name not in colours]
    ground = free[0] if random is None else random.choice(free)
    return replace(wish, things=tuple(things), background=wish.background or ground)


def _answered(text: str, wish: Description, random: Random) -> Request:
    """Returns a request whose answer chooses at random in one case of five."""
    return Request(text, wish, completed(wish, random if random.random() < 0.2 else None))


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
        count = 2 if random.random() < 0.25 else 1
        things = tuple(_thing(random, count) for _ in range(count))
        background = random.choice(COLOUR_NAMES)
        combinations = [is_held_out(t.shape, t.colour, background) for t in things]
        colours = [thing.colour for thing in things]
        is_odd = background in colours and random.random() > 0.3
        if not is_odd and all(same == held_out for same in combinations):
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
    return _joined([*words, thing.colour], noun, has_article=chance < 0.85)


def _joined(words: Sequence[str], noun: str, has_article: bool = True) -> str:
    text = " ".join(word for word in (*words, noun) if word)
    return article(text) if has_article else text


def _other_noun(random: Random) -> str:
    """Returns a word for an object of any shape; sometimes a word that does not exist."""
    if random.random() < 0.7:
        return random.choice(("object", "shape", "thing", "figure"))
    return "".join(random.choices(ascii_lowercase, k=random.randint(2, 7)))


_SHAPE_OF: Final = {
    **{"red": "heart", "orange": "circle", "yellow": "star", "green": "triangle", "white": "ring"},
    **{"cyan": "diamond", "blue": "square", "purple": "ring", "pink": "heart", "black": "cross"},
}
_COLOUR_OF: Final = {
    **{"circle": "orange", "square": "blue", "triangle": "green", "star": "yellow"},
    **{"ring": "purple", "cross": "black", "heart": "red", "diamond": "cyan"},
}
_GROUND_OF: Final = {
    **{"white": "blue", "black": "yellow", "blue": "white", "red": "cyan", "yellow": "purple"},
    **{"green": "pink", "purple": "yellow", "orange": "blue", "cyan": "black", "pink": "green"},
}
"""The usual choices: a shape for a colour, a colour for a shape, a background for a colour."""
