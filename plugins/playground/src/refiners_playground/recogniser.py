"""A small network that reads what a picture shows, to measure the effect of prompts and adapters.

It finds objects as CenterNet does (arXiv 1904.07850, section 3): each cell of an 8 x 8 grid scores
whether an object's centre is near, and classifies that object. So it reads one object or several,
and its readings are scenes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from refiners_playground.caption import relation
from refiners_playground.convolution import Convolution
from refiners_playground.pattern import FILLS
from refiners_playground.scene import (
    ALL_SHAPES,
    COLOURS,
    COLUMNS,
    ROWS,
    SIZES,
    STYLES,
    Item,
    Scene,
)

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "shape": ALL_SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(COLOURS),
    "fill": FILLS,
    "size": tuple(SIZES),
    "column": COLUMNS,
    "row": ROWS,
}
"""The attributes of a scene with one object, and the words of each."""
ITEM_WORDS: Mapping[str, tuple[str, ...]] = {
    "shape": ALL_SHAPES,
    "colour": tuple(COLOURS),
    "fill": FILLS,
}
"""The words that each cell chooses among for the object near it."""
PICTURE_WORDS: Mapping[str, tuple[str, ...]] = {
    "background": tuple(COLOURS),
    "style": STYLES,
    "subject": ("objects", "face"),
    "hair": tuple(COLOURS),
}
"""The words for a whole picture; those for hair are meant for faces alone."""
GRID = 8
"""Cells in a row and in a column."""
PEAK = 0.4
"""The score (0...1) above which a cell has an object, if its neighbours score lower."""
MOST_OBJECTS = 4

WEIGHTS = Path(__file__).parent / "weights" / "recogniser.safetensors"


def attributes(scene: Scene) -> dict[str, str]:
    """Returns the true words of a scene with one object; of several, those of the first."""
    item = scene.items[0]
    return {
        "shape": item.shape,
        "colour": item.colour,
        "background": scene.background,
        "fill": item.fill,
        "size": item.size,
        "column": item.column,
        "row": item.row,
    }


def labels(scenes: Sequence[Scene]) -> dict[str, Int[Tensor, " batch"]]:
    """Returns the index in `ATTRIBUTES` of each attribute's word, for scenes with one object."""
    truths = [attributes(scene) for scene in scenes]
    return {
        name: torch.tensor([words.index(truth[name]) for truth in truths], dtype=torch.long)
        for name, words in ATTRIBUTES.items()
    }


class Recogniser(nn.Module):
    """Convolutions down to the grid, their summary of the whole picture, and linear readings."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Sequential(
            Convolution(3, 24, stride=2),
            Convolution(24, 48, stride=2),
            Convolution(48, 80, stride=2),
            Convolution(80, 80),
            Convolution(80, 80),
            Convolution(80, 80),
        )
        self.summary = nn.Sequential(Convolution(80, 96, stride=2), Convolution(96, 64))
        self.joined = nn.Sequential(
            nn.Conv2d(80 + 64, 112, 1, bias=False), nn.BatchNorm2d(112), nn.ReLU()
        )
        self.score = nn.Conv2d(112, 1, 1)
        self.place = nn.Conv2d(112, 3, 1)
        self.items = nn.ModuleDict(
            {name: nn.Conv2d(112, len(words), 1) for name, words in ITEM_WORDS.items()}
        )
        self.picture = nn.ModuleDict(
            {name: nn.Linear(64 * 16, len(words)) for name, words in PICTURE_WORDS.items()}
        )

    def forward(self, pixels: Float[Tensor, "batch 3 64 64"]) -> dict[str, Tensor]:
        """Returns logits and places, for pictures in 0...1.

        Returns:
            `score` and the names of `ITEM_WORDS`: logits of each cell. `place`: the centre of the
            object relative to the cell's, in cells, and its radius in units of half a picture. The
            names of `PICTURE_WORDS`: logits of the whole picture.
        """
        cells = self.grid(pixels * 2 - 1)
        summary = self.summary(cells)
        joined = self.joined(torch.cat([cells, interpolate(summary, scale_factor=2.0)], 1))
        values = {"score": self.score(joined), "place": self.place(joined)}
        values |= {name: reading(joined) for name, reading in self.items.items()}
        flat = summary.flatten(1)
        return values | {name: reading(flat) for name, reading in self.picture.items()}

    @torch.no_grad()
    def read_scenes(
        self, pixels: Float[Tensor, "batch 3 64 64"], most: int = MOST_OBJECTS
    ) -> list[Scene]:
        """Reads pictures as scenes, in the order of drawn ones: the left or upper object first.

        Each scene has at least the likeliest object. Angle and texture are not read.

        Args:
            pixels: Pictures in 0...1.
            most: The number of objects above which the least likely are left out.
        """
        values = {name: value.float().cpu() for name, value in self(pixels).items()}
        scores = values["score"].sigmoid()
        is_peak = (scores == max_pool2d(scores, 3, stride=1, padding=1)).flatten(1)
        peaks = torch.where(is_peak, scores.flatten(1), 0.0)
        best, cells = peaks.topk(most)
        picture = {name: values[name].argmax(1).tolist() for name in PICTURE_WORDS}
        words = {name: values[name].argmax(1).flatten(1) for name in ITEM_WORDS}
        place = values["place"].flatten(2)
        scenes: list[Scene] = []
        for row in range(len(pixels)):
            items: list[Item] = []
            for rank, (score, cell) in enumerate(
                zip(best[row].tolist(), cells[row].tolist(), strict=True)
            ):
                if rank and score < PEAK:
                    break
                x, y, radius = place[row, :, cell].tolist()
                items.append(
                    Item(
                        **{name: ITEM_WORDS[name][words[name][row, cell]] for name in ITEM_WORDS},
                        radius=radius,
                        x=(cell % GRID + 0.5 + x) * 2 / GRID - 1,
                        y=(cell // GRID + 0.5 + y) * 2 / GRID - 1,
                    )
                )
            scenes.append(
                Scene(
                    _in_order(items),
                    PICTURE_WORDS["background"][picture["background"][row]],
                    style=PICTURE_WORDS["style"][picture["style"][row]],
                )
            )
        return scenes

    @torch.no_grad()
    def read_pictures(self, pixels: Float[Tensor, "batch 3 64 64"]) -> list[dict[str, str]]:
        """Returns the likeliest word of each name in `PICTURE_WORDS`, for pictures in 0...1."""
        values = self(pixels)
        chosen = {name: values[name].argmax(1).tolist() for name in PICTURE_WORDS}
        return [
            {name: words[chosen[name][row]] for name, words in PICTURE_WORDS.items()}
            for row in range(len(pixels))
        ]

    def read(self, pixels: Float[Tensor, "batch 3 64 64"]) -> list[dict[str, str]]:
        """Returns the likeliest word of each attribute, for pictures in 0...1.

        Of a picture with several objects, the likeliest is read.
        """
        return [attributes(scene) for scene in self.read_scenes(pixels, most=1)]


def load_recogniser(path: Path = WEIGHTS) -> Recogniser:
    """Loads the trained recogniser in float32."""
    with torch.device("cpu"):
        recogniser = Recogniser()
    recogniser.load_state_dict(load_file(path))
    return recogniser.eval().requires_grad_(False)


def agreement(
    recogniser: Recogniser, pixels: Float[Tensor, "batch 3 64 64"], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Returns the share (0...1) of pictures in which each attribute is recognised correctly."""
    pairs = list(zip(recogniser.read(pixels), map(attributes, scenes), strict=True))
    return {
        name: sum(reading[name] == truth[name] for reading, truth in pairs) / len(scenes)
        for name in ATTRIBUTES
    }


def pair_agreement(readings: Sequence[Scene], scenes: Sequence[Scene]) -> dict[str, list[bool]]:
    """Returns in which pictures of two objects each part is as in the scenes.

    Args:
        readings: Scenes that were read from pictures.
        scenes: The scenes that were prompted, whose objects differ in shape or colour.

    Returns:
        `objects`: there are exactly two. `bound`: both objects are there, each shape with its own
        colour, wherever they lie. `relation`: they also lie as prompted. `background`: it has its
        colour.
    """
    outcomes: dict[str, list[bool]] = {
        name: [] for name in ("objects", "bound", "relation", "background")
    }
    for reading, scene in zip(readings, scenes, strict=True):
        drawn, wanted = (
            [(item.shape, item.colour) for item in either.items] for either in (reading, scene)
        )
        is_bound = sorted(drawn) == sorted(wanted)
        outcomes["objects"].append(len(drawn) == len(wanted))
        outcomes["bound"].append(is_bound)
        outcomes["relation"].append(
            is_bound and drawn == wanted and relation(reading) == relation(scene)
        )
        outcomes["background"].append(reading.background == scene.background)
    return outcomes


def _in_order(items: Sequence[Item]) -> tuple[Item, ...]:
    """Returns one object, or several from left to right or from top to bottom, along the direction
    in which they lie further apart."""
    across = max(item.x for item in items) - min(item.x for item in items)
    down = max(item.y for item in items) - min(item.y for item in items)
    return tuple(sorted(items, key=lambda item: item.x if across > down else item.y))
