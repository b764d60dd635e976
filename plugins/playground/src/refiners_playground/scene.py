"""Scenes that a program draws: one or two coloured shapes on a coloured background.

A `Scene` is a value that describes a picture; `draw` turns many scenes into pixels at once, on
torch's default device. The picture spans -1...1 in both directions, x to the right and y downwards.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_playground.outline import OUTLINES
from refiners_playground.pattern import marks, shades

SIZE = 64
HELD_OUT_SHAPE = "crescent"
"""A shape that can be drawn, named and recognised, but that the base model was never shown."""
ALL_SHAPES: tuple[str, ...] = tuple(OUTLINES)
SHAPES: tuple[str, ...] = tuple(name for name in ALL_SHAPES if name != HELD_OUT_SHAPE)
"""The shapes that the base model knows."""
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.14),
    "orange": (0.96, 0.54, 0.08),
    "yellow": (0.98, 0.88, 0.20),
    "green": (0.15, 0.62, 0.25),
    "cyan": (0.20, 0.80, 0.86),
    "blue": (0.15, 0.30, 0.85),
    "purple": (0.48, 0.18, 0.62),
    "pink": (0.97, 0.60, 0.76),
    "white": (0.96, 0.96, 0.96),
    "black": (0.07, 0.07, 0.09),
}
STYLES: tuple[str, ...] = ("flat", "soft", "inked")
"""The styles of a scene: areas of colour, with blurred outlines, or with a thick line of ink around
each object. The base model was never shown ink."""
SIZES: Mapping[str, float] = {"small": 0.36, "medium": 0.52, "large": 0.70}
COLUMNS: tuple[str, ...] = ("left", "centre", "right")
ROWS: tuple[str, ...] = ("top", "centre", "bottom")
OFF_CENTRE = 0.2
"""The distance from the centre above which an object counts as at a side."""

INKS: tuple[tuple[float, float, float], ...] = (
    (0.05, 0.05, 0.06),
    (0.97, 0.97, 0.97),
    (0.50, 0.50, 0.52),
)
"""Black, white and grey; an object is outlined in the ink that differs most from its colours."""
INK_WIDTH, INK_INSET = 4.0, 1.0
"""The width of a line of ink, and how far inside the outline its middle lies, in pixels (of 64)."""
SOFTNESS = 8.0
"""The width of a soft outline in pixels (of 64)."""
CHUNK, ACCELERATED_CHUNK = 64, 1024
"""Scenes that are drawn at once, on the CPU, where more overflow its cache, and elsewhere."""


@dataclass(frozen=True)
class Item:
    """An object: radius and centre in units of half a picture, angle in radians."""

    shape: str
    colour: str
    fill: str = "plain"
    radius: float = 0.70
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0

    @property
    def size(self) -> str:
        """The word for the size nearest to the radius."""
        return min(SIZES, key=lambda word: abs(SIZES[word] - self.radius))

    @property
    def column(self) -> str:
        """The third in which the centre lies, from left to right."""
        return COLUMNS[1 + (self.x > OFF_CENTRE) - (self.x < -OFF_CENTRE)]

    @property
    def row(self) -> str:
        """The third in which the centre lies, from top to bottom."""
        return ROWS[1 + (self.y > OFF_CENTRE) - (self.y < -OFF_CENTRE)]


@dataclass(frozen=True)
class Scene:
    """The contents of a picture: objects on a background, the last in front."""

    items: tuple[Item, ...]
    background: str
    texture: str = "plain"
    style: str = "flat"


def is_held_out(shape: str, colour: str, background: str) -> bool:
    """Whether a combination is held out from training, for measurements."""
    names = list(COLOURS)
    mixed = ALL_SHAPES.index(shape) + 3 * names.index(colour) + 5 * names.index(background)
    return mixed % 7 == 0


def held_out_scenes() -> Iterator[Scene]:
    """Yields one large, centred, plain object for each combination held out from training."""
    for shape in SHAPES:
        for colour in COLOURS:
            for background in COLOURS:
                if colour != background and is_held_out(shape, colour, background):
                    yield Scene((Item(shape, colour),), background)


def draw(scenes: Sequence[Scene], size: int = SIZE) -> Float[Tensor, "batch 3 size size"]:
    """Draws scenes as RGB pictures in 0...1, `size` pixels wide and high.

    Args:
        scenes: The scenes; equal scenes give equal pixels.
        size: Width and height in pixels; patterns scale with it.
    """
    if not scenes:
        return torch.zeros(0, 3, size, size)
    step = chunk_length()
    chunks = [scenes[start : start + step] for start in range(0, len(scenes), step)]
    return torch.cat([_draw_chunk(chunk, size) for chunk in chunks])


def chunk_length() -> int:
    """Returns how many pictures are drawn at once on torch's default device."""
    return CHUNK if torch.get_default_device().type == "cpu" else ACCELERATED_CHUNK


def _draw_chunk(scenes: Sequence[Scene], size: int) -> Float[Tensor, "batch 3 size size"]:
    shade = shades([scene.texture for scene in scenes], size, SIZE / size)
    canvas = (_colours([scene.background for scene in scenes]) + 0.1 * shade).clamp(0, 1)
    for layer in range(max(len(scene.items) for scene in scenes)):
        rows = [row for row, scene in enumerate(scenes) if len(scene.items) > layer]
        items = [scenes[row].items[layer] for row in rows]
        distance = _distance(items, size).unsqueeze(1)
        softness = [SOFTNESS * size / SIZE if scenes[r].style == "soft" else 1.0 for r in rows]
        cover = (0.5 - distance / torch.tensor(softness).view(-1, 1, 1, 1)).clamp(0, 1)
        places = torch.tensor(rows)
        canvas[places] = torch.lerp(canvas[places], _paint(items, size), cover)
        inked = [i for i, row in enumerate(rows) if scenes[row].style == "inked"]
        if inked:
            line = distance[torch.tensor(inked)]
            _ink(canvas, [rows[i] for i in inked], scenes, layer, line)
    return canvas


def _ink(
    canvas: Float[Tensor, "batch 3 size size"],
    rows: Sequence[int],
    scenes: Sequence[Scene],
    layer: int,
    distance: Float[Tensor, "inked 1 size size"],
) -> None:
    """Draws a line of ink along the outline of one item in each of some scenes."""
    pixel = distance.shape[-1] / SIZE
    off_middle = (distance + INK_INSET * pixel).abs()
    line = (0.5 + INK_WIDTH * pixel / 2 - off_middle).clamp(0, 1)
    grounds = torch.stack(
        [
            _colours([scenes[row].items[layer].colour for row in rows]),
            _colours([scenes[row].background for row in rows]),
        ]
    ).view(2, -1, 1, 3)
    inks = torch.tensor(INKS)
    best = (inks - grounds).square().sum(-1).amin(0).argmax(-1)
    places = torch.tensor(rows)
    behind = canvas[places]
    canvas[places] = torch.lerp(behind, inks[best].view(-1, 3, 1, 1).expand_as(behind), line)


def _distance(items: Sequence[Item], size: int) -> Float[Tensor, "batch size size"]:
    """Returns the distance of each pixel from each item's outline, in pixels, negative inside."""
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    place = torch.tensor(
        [(i.x, i.y, i.radius, math.cos(i.angle), math.sin(i.angle)) for i in items]
    )
    x0, y0, radius, cosine, sine = (column.view(-1, 1, 1) for column in place.unbind(1))
    x, y = line.view(1, 1, -1) - x0, line.view(1, -1, 1) - y0
    u, v = (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius
    distance = torch.empty(len(items), size, size)
    for name, outline in OUTLINES.items():
        places = [row for row, item in enumerate(items) if item.shape == name]
        if places:
            rows = torch.tensor(places)
            distance[rows] = outline(u[rows], v[rows])
    return distance * radius * (size / 2)


def _colours(names: Sequence[str]) -> Float[Tensor, "batch 3 1 1"]:
    return torch.tensor([COLOURS[name] for name in names]).view(-1, 3, 1, 1)


def _paint(items: Sequence[Item], size: int) -> Float[Tensor, "batch 3 size size"]:
    """Returns the colour of each item, with the marks of its fill."""
    colour = _colours([item.colour for item in items])
    # Marks are mixed with black or white, whichever is further from the colour.
    mark = torch.lerp(colour, (colour.mean(1, keepdim=True) < 0.4).float().expand_as(colour), 0.6)
    pattern = marks([item.fill for item in items], size, SIZE / size)
    return torch.lerp(colour.expand(-1, -1, size, size), mark, pattern)
