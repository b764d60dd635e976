"""Random scenes and faces for training, of an easy kind that teaches words and of harder kinds.

The easy, canonical kind shows one large, centred, plain object. Without a large share of canonical
scenes the model learns colours, but never the words for shapes. Each other kind teaches what it
names: pairs teach relations, filled scenes fills, sized scenes sizes and places.
"""

from dataclasses import replace
from random import Random

from refiners_playground.face import Face, identity_at, is_held_out_identity
from refiners_playground.pattern import FILLS, TEXTURES
from refiners_playground.scene import (
    COLOURS,
    HELD_OUT_SHAPE,
    SHAPES,
    SIZES,
    Item,
    Scene,
    is_held_out,
)

TWO_OBJECTS = 0.14
PATTERNED = 0.25
TEXTURED = 0.09
SOFT = 0.05
SIZE_SHARES = (0.2, 0.4, 0.4)
PLACED_SIZE_SHARES = (0.5, 0.35, 0.15)
COLOUR_NAMES = tuple(COLOURS)
GAP = 0.1
"""The least distance of two objects, in units of half a picture."""
IDENTITIES = 40_000
"""The persons in training; the numbers of those that are held out are left out."""


def canonical_scene(random: Random, held_out: bool = False) -> Scene:
    """Returns a random large, centred, plain object on a plain background."""
    shape, colour, background = _combination(random, held_out)
    return Scene((_centred(random, shape, colour),), background)


def filled_scene(random: Random, held_out: bool = False) -> Scene:
    """Returns a random large, centred object with a fill that is seldom plain."""
    shape, colour, background = _combination(random, held_out)
    item = replace(_centred(random, shape, colour), fill=_other(random, FILLS, 0.85))
    return Scene((item,), background)


def sized_scene(random: Random, held_out: bool = False) -> Scene:
    """Returns one random plain object, clearly in one of nine places.

    Small objects have the farthest places; large ones are centred.
    """
    shape, colour, background = _combination(random, held_out)
    size = random.choices(tuple(SIZES.values()), PLACED_SIZE_SHARES)[0]
    radius = size * random.uniform(0.95, 1.05)
    room = 0.96 - radius

    def place() -> float:
        if size == SIZES["large"] or random.random() < 1 / 3:
            return random.uniform(-0.05, 0.05)
        return random.choice((-1, 1)) * random.uniform(max(0.7 * room, 0.27), room)

    item = Item(
        shape, colour, radius=radius, x=place(), y=place(), angle=random.uniform(-0.06, 0.06)
    )
    return Scene((item,), background)


def varied_scene(random: Random) -> Scene:
    """Returns one or two random objects of any size, place and fill, sometimes on a texture or with
    soft outlines."""
    style = "soft" if random.random() < SOFT else "flat"
    if random.random() < TWO_OBJECTS:
        return replace(pair_scene(random, patterned=0.1), style=style)
    return replace(placed_scene(random, patterned=PATTERNED, textured=TEXTURED), style=style)


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


def subject_scene(random: Random) -> Scene:
    """Returns a random scene of the shape that the base model was not trained on."""
    colour, background = random.sample(COLOUR_NAMES, 2)
    return Scene((_centred(random, HELD_OUT_SHAPE, colour),), background)


def pair_scene(random: Random, patterned: float = 0.1, held_out: bool = False) -> Scene:
    """Returns two objects side by side or one above the other, the left or upper one first.

    Shape, colour or both differ. One of them may be medium; the other is small.

    Args:
        random: The source of randomness.
        patterned: The share (0...1) of objects whose fill is not plain.
        held_out: Whether both objects are among the combinations that are held out from training.
    """
    shape, colour, background = _combination(random, held_out)
    other_shape, other_colour = shape, colour
    while (
        (other_shape == shape and other_colour == colour)
        or other_colour == background
        or is_held_out(other_shape, other_colour, background) != held_out
    ):
        other_shape, other_colour = random.choice(SHAPES), random.choice(COLOUR_NAMES)
    sizes = random.choice((("small", "small"), ("small", "medium"), ("medium", "small")))
    radii = [SIZES[size] * random.uniform(0.95, 1.04) for size in sizes]
    room = 1.94 - 2 * sum(radii) - GAP
    before, between = sorted(random.uniform(0, room) for _ in range(2))
    along = (
        -0.97 + before + radii[0],
        -0.97 + between + GAP + 2 * radii[0] + radii[1],
    )
    is_beside = random.random() < 0.5
    items: list[Item] = []
    kinds = ((shape, colour), (other_shape, other_colour))
    for (kind, paint), radius, place in zip(kinds, radii, along, strict=True):
        across = random.uniform(-0.12, 0.12)
        x, y = (place, across) if is_beside else (across, place)
        fill = _other(random, FILLS, patterned)
        items.append(Item(kind, paint, fill, radius, x, y, random.uniform(-0.06, 0.06)))
    return Scene(tuple(items), background)


def random_identity(random: Random, held_out: bool = False) -> int:
    """Returns the number of a random person for training, or of one who is held out from it."""
    while True:
        number = random.randrange(IDENTITIES)
        if is_held_out_identity(number) == held_out:
            return number


def random_face(random: Random, held_out: bool = False) -> Face:
    """Returns the face of a random person in a random pose, with random hair and background."""
    return posed_face(random, random_identity(random, held_out))


def posed_face(random: Random, number: int) -> Face:
    """Returns the face of one identity in a random pose, with random hair and background."""
    hair, background = random.sample(COLOUR_NAMES, 2)
    return Face(
        identity_at(number),
        hair,
        background,
        x=random.uniform(-0.08, 0.08),
        y=random.uniform(-0.06, 0.06),
        scale=random.uniform(0.9, 1.05),
        angle=random.uniform(-0.12, 0.12),
    )


def _centred(random: Random, shape: str, colour: str) -> Item:
    """Returns a large, plain object in the centre."""
    return Item(
        shape,
        colour,
        radius=SIZES["large"] * random.uniform(0.97, 1.03),
        x=random.uniform(-0.03, 0.03),
        y=random.uniform(-0.03, 0.03),
        angle=random.uniform(-0.06, 0.06),
    )


def _other(random: Random, names: tuple[str, ...], share: float) -> str:
    """Returns the first name, or with probability `share` one of the others."""
    return random.choice(names[1:]) if random.random() < share else names[0]


def _combination(random: Random, held_out: bool = False) -> tuple[str, str, str]:
    """Returns a shape, a colour and a different background, held out from training or not."""
    while True:
        shape = random.choice(SHAPES)
        colour, background = random.sample(COLOUR_NAMES, 2)
        if is_held_out(shape, colour, background) == held_out:
            return shape, colour, background
