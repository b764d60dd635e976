"""Captions of scenes, with parts left out at random.

Because parts are left out in training, a prompt may name as little as one colour: the model chooses
everything that is not named.
"""

from random import Random

from refiners_playground.scene import COLOURS, FILLS, SHAPES, Item, Scene

SIZE_WORDS = {"small": ("small",), "medium": ("medium",), "large": ("large", "big")}
FILL_WORDS = {fill: (fill,) for fill in FILLS} | {"plain": ("plain", "solid")}
CENTRE_WORDS = ("centre", "center")
FRAMES = ("{}", "{}", "{}", "{}", "a picture of {}", "a drawing of {}", "a photo of {}")
WORDS: frozenset[str] = frozenset(
    ["a", "an", "the", "of", "on", "in", "at", "and", "left", "right", "top", "bottom", "above"]
    + ["below", "corner", "background", "textured", "object", "shape", "picture", "drawing"]
    + ["photo", "with", ",", ".", *SHAPES, *COLOURS, *CENTRE_WORDS]
    + [word for words in (*SIZE_WORDS.values(), *FILL_WORDS.values()) for word in words]
)
"""Every word in captions; each is one token of the playground's tokenizer."""


def article(words: str) -> str:
    """Returns words after `a` or `an`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plain_caption(scene: Scene) -> str:
    """Returns a caption with the shape, colour and background of a scene's one object."""
    item = scene.items[0]
    return f"{article(item.colour)} {item.shape} on {article(scene.background)} background"


def caption(scene: Scene, random: Random, keep_shape: bool = False) -> str:
    """Returns a caption of a scene, with parts left out at random.

    Args:
        scene: The scene.
        random: The source of randomness.
        keep_shape: Whether shapes are always named, as canonical scenes need.
    """
    if len(scene.items) == 2:
        first, second = scene.items
        phrases = [_noun(item, random, keep_shape=True, detail=0.15) for item in scene.items]
        middle = _relation(first, second, random)
        if middle in {"right of", "below"}:
            phrases.reverse()
        text = f"{phrases[0]} {middle} {phrases[1]}"
    else:
        text = _noun(scene.items[0], random, keep_shape, detail=0.5)
        if random.random() < 0.4:
            text += " " + _place(scene.items[0], random)
    return _with_background(random.choice(FRAMES).format(text), scene, random)


def _with_background(text: str, scene: Scene, random: Random) -> str:
    if random.random() < 0.12:
        return text
    textured = scene.texture != "plain" and random.random() < 0.7
    words = f"textured {scene.background}" if textured else scene.background
    if random.random() < 0.1:
        return f"{text}, {words} background"
    return f"{text} on {article(words)} background"


def _relation(first: Item, second: Item, random: Random) -> str:
    if random.random() < 0.25:
        return "and"
    beside = abs(second.x - first.x) > abs(second.y - first.y)
    return random.choice(("left of", "right of") if beside else ("above", "below"))


def _noun(item: Item, random: Random, keep_shape: bool, detail: float) -> str:
    """Returns article, adjectives and noun; names size and fill with probability `detail`."""
    words: list[str] = []
    if random.random() < detail:
        words.append(random.choice(SIZE_WORDS[item.size]))
    if random.random() < (detail * 0.4 if item.fill == "plain" else 0.5 + detail / 2):
        words.append(random.choice(FILL_WORDS[item.fill]))
    if random.random() < 0.88:
        words.append(item.colour)
    named = keep_shape or random.random() < 0.9
    words.append(item.shape if named else random.choice(("object", "shape")))
    return article(" ".join(words))


def _place(item: Item, random: Random) -> str:
    centre = random.choice(CENTRE_WORDS)
    if item.row == "centre":
        return f"in the {centre}" if item.column == "centre" else f"on the {item.column}"
    if item.column == "centre":
        return f"at the {item.row}"
    return f"in the {item.row} {item.column} corner"
