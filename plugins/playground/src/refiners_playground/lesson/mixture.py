"""Mixtures of the kinds of pictures that the base model knows."""

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from refiners_playground.curriculum import lesson, lesson_caption
from refiners_playground.lesson.example import Caption

KNOWN: Final = (
    ("canonical", 3),
    ("placed", 1),
    ("varied", 2),
    ("pairs", 2),
    ("fills", 1),
    ("places", 1),
    ("faces", 2),
)
"""The kinds of pictures that the base model knows, and their shares."""


def mixed(count: int, kinds: Sequence[tuple[str, int]] = KNOWN) -> tuple[list[Any], Caption]:
    """Returns pictures of several kinds in turn, and the function of their captions.

    Args:
        count: The number of pictures.
        kinds: The kinds of the curriculum, and how many of each make a round.
    """
    turns = [kind for kind, share in kinds for _ in range(share)]
    names = [turns[index % len(turns)] for index in range(count)]
    pictures: list[Any] = [lesson(name, index) for index, name in enumerate(names)]

    def caption(index: int, random: Random) -> str:
        return lesson_caption(names[index], pictures[index], random)

    return pictures, caption
