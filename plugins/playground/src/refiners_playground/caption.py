"""Captions of scenes and faces, with parts left out at random.

Because parts are left out in training, a prompt may name as little as one colour: the model chooses
everything that is not named. A `Mention` states how often each part is named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from refiners_playground.face import Face
from refiners_playground.pattern import FILLS
from refiners_playground.picture import Picture
from refiners_playground.scene import ALL_SHAPES, COLOURS, Item, Scene

SIZE_WORDS = {"small": ("small",), "medium": ("medium",), "large": ("large", "big")}
FILL_WORDS = {fill: (fill,) for fill in FILLS} | {"plain": ("plain", "solid")}
CENTRE_WORDS = ("centre", "center")
FRAMES = (
    *("{}", "{}", "{}", "{}", "{}", "{}"),
    *("a picture of {}", "a drawing of {}", "a photo of {}", "picture {}"),
)
STOPPED = 0.15
"""The share of captions that end with a full stop, as sentences do."""
SOFT_FRAMES = ("a soft picture of {}", "a soft drawing of {}")
FACE_FRAMES = (*FRAMES, "a portrait of {}")
RELATIONS: Mapping[str, str] = {"left of": "right of", "above": "below"}
"""The word for each relation of a first object to a second, and the word for the converse."""
SKIN_WORDS = ("pale", "tan", "dark")
LENGTH_WORDS = ("short", "long")
MOOD_WORDS = ("sad", "smiling")
SPARE_WORDS = (
    "ink inked outlined outline line lines style sketch painting image scene flat bright light lit "
    "from shadow crescent moon person man woman two three one objects shapes between inside beside "
    "next to under over middle side upper lower half gray grey brown wide narrow round eyes nose "
    "mouth brows skin wearing is not are only no very sks"
)
"""Words of no caption of the base model, which adapters and prompts of others may need."""
WORDS: frozenset[str] = frozenset(
    ["a", "an", "the", "of", "on", "in", "at", "and", "left", "right", "top", "bottom", "above"]
    + ["below", "corner", "background", "textured", "object", "shape", "picture", "drawing"]
    + ["photo", "with", ",", ".", *ALL_SHAPES, *COLOURS, *CENTRE_WORDS]
    + [word for words in (*SIZE_WORDS.values(), *FILL_WORDS.values()) for word in words]
    + ["soft", "face", "hair", "portrait", *SKIN_WORDS, *LENGTH_WORDS, *MOOD_WORDS]
    + SPARE_WORDS.split()
)
"""The words of captions and some more; each is one token of the playground's tokenizer."""


@dataclass(frozen=True)
class Mention:
    """The share (0...1) of captions that name each part.

    Attributes:
        shape: The shape of one object; those of two are always named.
        colour: The colour of an object.
        size: The size of an object.
        plain: The fill of an object whose fill is plain.
        fill: The fill of any other object.
        place: The place of a single object.
        relation: The relation of two objects, which `and` leaves open.
        background: The colour behind.
    """

    shape: float = 0.9
    colour: float = 0.88
    size: float = 0.5
    plain: float = 0.2
    fill: float = 0.75
    place: float = 0.4
    relation: float = 0.75
    background: float = 0.88


VARIED = Mention()
PAIRED = Mention(colour=0.88, size=0.15, plain=0.06, fill=0.575)
"""The parts that captions of varied scenes name of two objects."""


def article(words: str) -> str:
    """Returns words after `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plain_caption(picture: Picture) -> str:
    """Returns a caption that names what a prompt of the playground names, and nothing else.

    Of one object these are shape, colour and background; of two also their relation; of a face hair
    and background.
    """
    ground = f"on {article(picture.background)} background"
    if isinstance(picture, Face):
        return f"a face with {picture.hair} hair {ground}"
    things = [f"{article(item.colour)} {item.shape}" for item in picture.items]
    return f"{f' {relation(picture)} '.join(things)} {ground}"


def full_caption(scene: Scene) -> str:
    """Returns a caption that also names size and fill, and the place of a single object."""
    things = [
        article(f"{item.size} {item.fill} {item.colour} {item.shape}") for item in scene.items
    ]
    text = f" {relation(scene)} ".join(things)
    if len(things) == 1:
        text += " " + place(scene.items[0])
    return f"{text} on {article(scene.background)} background"


def caption(
    picture: Picture, random: Random, keep_shape: bool = False, mention: Mention | None = None
) -> str:
    """Returns a caption of a picture, with parts left out at random.

    Args:
        picture: The scene or face.
        random: The source of randomness.
        keep_shape: Whether shapes are always named, as canonical scenes need.
        mention: How often each part is named; by default as suits varied scenes.
    """
    if isinstance(picture, Face):
        return _face_caption(picture, random, mention or VARIED)
    if len(picture.items) == 2:
        mention = mention or PAIRED
        phrases = [_noun(item, mention, random, keep_shape=True) for item in picture.items]
        middle = relation(picture)
        if random.random() >= mention.relation:
            middle = "and"
        if random.random() < 0.5:
            middle = RELATIONS.get(middle, middle)
            phrases.reverse()
        text = f"{phrases[0]} {middle} {phrases[1]}"
    else:
        mention = mention or VARIED
        text = _noun(picture.items[0], mention, random, keep_shape)
        if random.random() < mention.place:
            text += " " + place(picture.items[0], random.choice(CENTRE_WORDS))
    frames = SOFT_FRAMES if picture.style == "soft" else FRAMES
    text = random.choice(frames).format(text)
    words = picture.background
    if picture.texture != "plain" and random.random() < 0.7:
        words = f"textured {words}"
    return _with_background(text, words, random, mention)


def relation(scene: Scene) -> str:
    """Returns the place of the first of two objects relative to the second; "" for one object."""
    if len(scene.items) < 2:
        return ""
    first, second = scene.items
    dx, dy = second.x - first.x, second.y - first.y
    word, ahead = ("left of", dx) if abs(dx) > abs(dy) else ("above", dy)
    return word if ahead > 0 else RELATIONS[word]


def place(item: Item, centre: str = CENTRE_WORDS[0]) -> str:
    """Returns the words for the place of an object, such as `in the top left corner`."""
    if item.row == "centre":
        return f"in the {centre}" if item.column == "centre" else f"on the {item.column}"
    if item.column == "centre":
        return f"at the {item.row}"
    return f"in the {item.row} {item.column} corner"


def _face_caption(face: Face, random: Random, mention: Mention) -> str:
    words: list[str] = []
    tone, length, curve = (
        face.identity.skin_tone,
        face.identity.hair_length,
        face.identity.mouth_curve,
    )
    if random.random() < 0.25 and abs(curve - 0.5) > 0.2:
        words.append(MOOD_WORDS[curve > 0.5])
    if random.random() < 0.25:
        words.append(SKIN_WORDS[min(int(3 * tone), 2)])
    text = article(" ".join([*words, "face"]))
    if random.random() < mention.colour:
        is_long = random.random() < 0.25 and abs(length - 0.5) > 0.15
        hair = f"{LENGTH_WORDS[length > 0.5]} {face.hair}" if is_long else face.hair
        text += f" with {hair} hair"
    text = random.choice(FACE_FRAMES).format(text)
    return _with_background(text, face.background, random, mention)


def _with_background(text: str, words: str, random: Random, mention: Mention) -> str:
    if random.random() < mention.background:
        if random.random() < 0.1:
            text = f"{text}, {words} background"
        else:
            text = f"{text} on {article(words)} background"
    return f"{text}." if random.random() < STOPPED else text


def _noun(item: Item, mention: Mention, random: Random, keep_shape: bool = False) -> str:
    """Returns article, adjectives and noun."""
    words: list[str] = []
    if random.random() < mention.size:
        words.append(random.choice(SIZE_WORDS[item.size]))
    if random.random() < (mention.plain if item.fill == "plain" else mention.fill):
        words.append(random.choice(FILL_WORDS[item.fill]))
    if random.random() < mention.colour:
        words.append(item.colour)
    is_named = keep_shape or random.random() < mention.shape
    words.append(item.shape if is_named else random.choice(("object", "shape")))
    return article(" ".join(words))
