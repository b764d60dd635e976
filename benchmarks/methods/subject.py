"""The lesson of the subject with a new word, for textual inversion."""

from random import Random
from typing import Any, Final

from refiners_playground.lesson.example import Lesson
from refiners_playground.lesson.style import subject
from refiners_playground.scene import HELD_OUT_SHAPE

WORD: Final = "<crescent>"


def worded(**options: Any) -> Lesson:
    """Returns pictures of the subject, whose captions call it by the new word."""
    lesson = subject(**options)

    def caption(index: int, random: Random) -> str:
        return lesson.captions(index, random).replace(HELD_OUT_SHAPE, WORD)

    return Lesson("subject, a new word", lesson.pictures, caption)
