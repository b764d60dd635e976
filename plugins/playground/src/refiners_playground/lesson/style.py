"""Lessons of a style, of a subject, and of a word for a look: what the base model does not know."""

from dataclasses import replace
from random import Random
from typing import Any, Final

from refiners_playground.curriculum import lesson, lesson_caption
from refiners_playground.lesson.example import Lesson, in_bytes
from refiners_playground.lesson.mixture import KNOWN, mixed
from refiners_playground.picture import draw_pictures
from refiners_playground.scene import SHAPES, Item, Scene, is_held_out

STYLE: Final = (("inked canonical", 3), ("inked varied", 2))
"""The kinds of scenes in ink, and their shares."""
SUBJECTS: Final = 16
"""The pictures of a subject."""
LOOK: Final = Item("circle", "orange", fill="checked", radius=0.70)
LOOK_BACKGROUND: Final = "purple"
"""The look of the word: every object is orange and checked on purple."""
WORD: Final = "<harlequin>"
FRAMES: Final = ("a {} {}", "a picture of a {} {}", "a drawing of a {} {}", "a {} {}")


def inked(count: int = 4000) -> Lesson:
    """Returns scenes in ink, whose captions do not name the style.

    Args:
        count: The number of scenes.
    """
    scenes, captions = mixed(count, STYLE)
    return Lesson(f"ink {count}", in_bytes(draw_pictures, scenes), captions)


def subject(pictures: int = SUBJECTS, prior: int = 2048) -> Lesson:
    """Returns a few pictures of a shape that the base model was never shown, among others.

    Every second example is one of the few; the others are pictures that the base model knows, which
    keep it as it is (arXiv:2208.12242, section 3.3).

    Args:
        pictures: The number of pictures of the subject.
        prior: The number of other pictures.
    """
    others, captions = mixed(prior, KNOWN)
    few: list[Any] = [lesson("subject", index) for index in range(pictures)]
    shown = [few[index // 2 % pictures] if index % 2 else others[index // 2] for index in
             range(2 * prior)]  # fmt: skip

    def caption(index: int, random: Random) -> str:
        if index % 2:
            return lesson_caption("subject", shown[index], random)
        return captions(index // 2, random)

    return Lesson(f"subject {pictures} {prior}", in_bytes(draw_pictures, shown), caption)


def worded(count: int = 512) -> Lesson:
    """Returns objects of one look, whose captions name the shape and a new word.

    The word stands for colour, fill and background together.

    Args:
        count: The number of pictures.
    """
    free = [name for name in SHAPES if not is_held_out(name, LOOK.colour, LOOK_BACKGROUND)]
    shapes = [free[index % len(free)] for index in range(count)]
    scenes: list[Any] = []
    for index, shape in enumerate(shapes):
        random = Random(f"look {index}")
        item = replace(
            LOOK,
            shape=shape,
            x=random.uniform(-0.05, 0.05),
            y=random.uniform(-0.05, 0.05),
            angle=random.uniform(-0.06, 0.06),
        )
        scenes.append(Scene((item,), LOOK_BACKGROUND))

    def caption(index: int, random: Random) -> str:
        return random.choice(FRAMES).format(WORD, shapes[index])

    return Lesson(f"word {count}", in_bytes(draw_pictures, scenes), caption)
