"""Random scenes for training: an easy kind that teaches words, a varied kind for the rest.

The easy, canonical kind shows one large, centred, plain object. Without a large share of canonical
scenes the model learns colours, but never the words for shapes.
"""

from dataclasses import replace
from random import Random

from refiners_playground.scene import (
    COLOURS,
    FILLS,
    SHAPES,
    SIZES,
    TEXTURES,
    Item,
    Scene,
    is_held_out,
)

TWO_OBJECTS = 0.14
PATTERNED = 0.25
TEXTURED = 0.09
SIZE_SHARES = (0.2, 0.4, 0.4)
COLOUR_NAMES = tuple(COLOURS)


def canonical_scene(random: Random) -> Scene:
    """Returns a random large, centred, plain object on a plain background."""
    shape, colour, background = _combination(random)
    item = Item(
        shape,
        colour,
        radius=SIZES["large"] * random.uniform(0.97, 1.03),
        x=random.uniform(-0.03, 0.03),
        y=random.uniform(-0.03, 0.03),
        angle=random.uniform(-0.06, 0.06),
    )
    return Scene((item,), background)


def varied_scene(random: Random) -> Scene:
    """Returns one or two random objects of any size, place and fill, sometimes on a texture."""
    if random.random() < TWO_OBJECTS:
        return _pair(random)
    return placed_scene(random, patterned=PATTERNED, textured=TEXTURED)


def placed_scene(
    random: Random, patterned: float = 0.0, textured: float = 0.0, held_out: bool = False
) -> Scene:
    """Returns one random object of any size, anywhere in the picture.

    Args:
        random: The source of randomness.
        patterned: The share (0...1) of objects whose fill is not plain.
        textured: The share (0...1) of backgrounds that are not plain.
        held_out: Whether to choose among the combinations that are held out from training.
    """
    shape, colour, background = _combination(random, held_out)
    size = random.choices(tuple(SIZES.values()), SIZE_SHARES)[0]
    radius = size * random.uniform(0.95, 1.05)
    room = 0.96 - radius
    item = Item(
        shape,
        colour,
        fill=_other(random, FILLS, patterned),
        radius=radius,
        x=random.uniform(-room, room),
        y=random.uniform(-room, room),
        angle=random.uniform(-0.15, 0.15),
    )
    return Scene((item,), background, _other(random, TEXTURES, textured))


def inked(scene: Scene) -> Scene:
    """Returns the same scene with a line of ink around each object, a style that the base model
    was not trained on."""
    return replace(scene, style="inked")


def _pair(random: Random) -> Scene:
    """Returns two objects, the left or upper one first."""
    shape, colour, background = _combination(random)
    other_shape, other_colour = shape, colour
    while (other_shape == shape and other_colour == colour) or not _may_show(
        other_shape, other_colour, background
    ):
        other_shape, other_colour = random.choice(SHAPES), random.choice(COLOUR_NAMES)
    beside = random.random() < 0.5
    items: list[Item] = []
    for side, (kind, paint) in ((-1, (shape, colour)), (1, (other_shape, other_colour))):
        along, across = side * random.uniform(0.44, 0.52), random.uniform(-0.12, 0.12)
        x, y = (along, across) if beside else (across, along)
        radius = SIZES["small"] * random.uniform(0.95, 1.12)
        items.append(Item(kind, paint, _other(random, FILLS, 0.1), radius, x, y))
    return Scene(tuple(items), background)


def _other(random: Random, names: tuple[str, ...], share: float) -> str:
    """Returns the first name, or with probability `share` one of the others."""
    return random.choice(names[1:]) if random.random() < share else names[0]


def _may_show(shape: str, colour: str, background: str) -> bool:
    return colour != background and not is_held_out(shape, colour, background)


def _combination(random: Random, held_out: bool = False) -> tuple[str, str, str]:
    """Returns a shape, a colour and a different background, held out from training or not."""
    while True:
        shape = random.choice(SHAPES)
        colour, background = random.sample(COLOUR_NAMES, 2)
        if is_held_out(shape, colour, background) == held_out:
            return shape, colour, background
