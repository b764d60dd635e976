"""The lesson of a language model that reads prompts: requests in free wording."""

from collections.abc import Mapping
from random import Random
from typing import Final

from refiners_playground.description import Description, Thing
from refiners_playground.lesson.example import Lesson, in_bytes
from refiners_playground.request import Request, random_request
from refiners_playground.scene import SIZES, Item, Scene, draw

SIDES: Final[Mapping[str, tuple[int, int]]] = {
    **{"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)},
}
"""The direction of each word of a place, rightwards and downwards."""
PAIR_RADII: Final[Mapping[str, float]] = {"": 0.38, "small": 0.36, "medium": 0.42, "large": 0.46}
"""The radius of each of two objects, by the word for its size."""


def requested(count: int = 16000) -> Lesson:
    """Returns scenes with requests for them: synonyms, courtesies, facts in any order.

    Facts that a request leaves open are those that the writer would choose.

    Args:
        count: The number of scenes.
    """
    requests = [request_at(index) for index in range(count)]
    scenes = [
        scene_of(request.answer, Random(f"scene {index}")) for index, request in enumerate(requests)
    ]

    def caption(index: int, random: Random) -> str:
        return requests[index].text

    return Lesson(f"requests {count}", in_bytes(draw, scenes), caption)


def request_at(index: int) -> Request:
    """Returns the request with an index, the same on every run."""
    return random_request(Random(f"request {index}"))


def scene_of(described: Description, random: Random) -> Scene:
    """Returns a scene that has all facts of a description.

    Args:
        described: A description whose objects have shape and colour, and that has a background.
        random: The source of randomness, of what it leaves open.
    """
    things = described.things
    if len(things) == 1:
        return Scene((_placed(things[0], described.place, random),), described.background)
    relation = described.relation
    if relation in ("", "and"):
        relation = random.choice(("left of", "right of", "above", "below"))
    is_beside = relation in ("left of", "right of")
    signs = (-1, 1) if relation in ("left of", "above") else (1, -1)
    items: list[Item] = []
    for thing, sign in zip(things, signs, strict=True):
        along, across = sign * random.uniform(0.46, 0.5), random.uniform(-0.12, 0.12)
        x, y = (along, across) if is_beside else (across, along)
        items.append(_item(thing, PAIR_RADII[thing.size], x, y, random))
    return Scene(tuple(items), described.background)


def _placed(thing: Thing, place: str, random: Random) -> Item:
    sides = [SIDES[word] for word in place.split() if word in SIDES]
    size = thing.size or (random.choice(("small", "medium")) if sides else "large")
    radius = SIZES[size]
    room = 0.96 - radius
    away = random.uniform(max(0.7 * room, min(0.27, room)), room)
    x, y = (sum(side[axis] for side in sides) * away for axis in (0, 1))
    return _item(thing, radius, x, y, random)


def _item(thing: Thing, radius: float, x: float, y: float, random: Random) -> Item:
    near, turn = random.uniform(-0.03, 0.03), random.uniform(-0.06, 0.06)
    return Item(
        thing.shape, thing.colour, thing.fill or "plain", radius * (1 + near), x + near, y, turn
    )
