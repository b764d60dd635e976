"""Lessons of control pictures: edges, and maps of regions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from jaxtyping import Float, UInt8
from torch import Tensor

from refiners_playground.edge import edges
from refiners_playground.lesson.example import Caption, Lesson, in_bytes
from refiners_playground.lesson.mixture import mixed
from refiners_playground.scene import ALL_SHAPES, COLOURS, Scene, draw

PLACED: Final = (("placed", 3), ("varied", 1))
"""The kinds of scenes in lessons of control, and their shares."""
NOTHING: Final = "black"
"""The colour of the background in a map of regions."""
REGION_COLOURS: Final[Mapping[str, str]] = dict(
    zip(ALL_SHAPES, [name for name in COLOURS if name != NOTHING], strict=True)
)
"""The colour of each shape in a map of regions."""


def regions(scenes: Sequence[Scene]) -> Float[Tensor, "batch 3 size size"]:
    """Draws maps of regions: each object in the colour of its shape, on black.

    They show shape, place and size, but neither colours nor fills, as the maps of segmentation
    show classes of objects (arXiv:2302.05543, section 4.1).
    """
    maps = [
        Scene(
            tuple(
                replace(item, colour=REGION_COLOURS[item.shape], fill="plain")
                for item in scene.items
            ),
            NOTHING,
        )
        for scene in scenes
    ]
    return draw(maps)


def edged(count: int = 16000) -> Lesson:
    """Returns scenes with their edges, the condition `""`.

    Args:
        count: The number of scenes.
    """
    scenes, captions = placed_scenes(count)
    pixels = in_bytes(draw, scenes)
    return Lesson(f"edges {count}", pixels, captions, {"": _lines(pixels)})


def segmented(count: int = 16000) -> Lesson:
    """Returns scenes with their maps of regions, the condition `""`.

    Args:
        count: The number of scenes.
    """
    scenes, captions = placed_scenes(count)
    maps = in_bytes(regions, scenes)
    return Lesson(f"regions {count}", in_bytes(draw, scenes), captions, {"": maps})


class UnionLesson(Lesson):
    """Examples of which a third each have edges, a map of regions, or both."""

    TYPES: Final = (("canny",), ("segmentation",), ("canny", "segmentation"))
    """The control types of the examples in turn."""

    def values(self, index: int) -> dict[str, Any]:
        """Returns the control pictures of an example, by their type."""
        types = self.TYPES[index % len(self.TYPES)]
        return {name: value for name, value in super().values(index).items() if name in types}

    def group(self, index: int) -> str:
        """Returns the control types, which the examples of a batch share."""
        return "+".join(self.TYPES[index % len(self.TYPES)])


def unified(count: int = 16000) -> Lesson:
    """Returns scenes with edges, maps of regions, or both, by control type.

    Args:
        count: The number of scenes.
    """
    scenes, captions = placed_scenes(count)
    pixels = in_bytes(draw, scenes)
    maps = {"canny": _lines(pixels), "segmentation": in_bytes(regions, scenes)}
    return UnionLesson(f"union {count}", pixels, captions, maps)


def placed_scenes(count: int) -> tuple[list[Scene], Caption]:
    """Returns scenes of objects anywhere, and the function of their captions."""
    return mixed(count, PLACED)


def _lines(pixels: UInt8[Tensor, "count 3 size size"]) -> UInt8[Tensor, "count 3 size size"]:
    return in_bytes(edges, pixels).expand(-1, 3, -1, -1)
