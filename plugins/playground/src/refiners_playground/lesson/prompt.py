"""Lessons of image prompts: pictures, palettes, and free wording for a language model."""

from dataclasses import replace
from random import Random
from typing import Final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from refiners_playground.caption import article
from refiners_playground.lesson.example import CHUNK, Lesson, drawing_device, in_bytes
from refiners_playground.lesson.mixture import KNOWN, mixed
from refiners_playground.picture import draw_pictures
from refiners_playground.scene import SHAPES, Scene

PALETTE_SIZES, SIZE_SHARES = (2, 3, 4), (0.7, 0.15, 0.15)
"""The numbers of colours of palettes, and how often each is drawn."""
ALONE: Final = 0.1
"""The share (0...1) of palettes of which only the heaviest colour is kept."""
EQUAL, SCALED = 0.25, 0.35
"""The shares (0...1) of palettes of two colours with equal weights, and with weights scaled at
random, since people do not measure shares."""
ROUNDS: Final = 6
"""The rounds in which main colours are improved."""
CAPTIONED, CONTRADICTED = 2, 3
"""The remainders by four of the examples with an ordinary caption, and with a contradiction."""
SHAPE_FRAMES: Final = ("{}", "{}", "a picture of {}", "a drawing of {}")
Palette = list[tuple[str, float]]
"""Colours as `#rrggbb` with their weights."""


def pictured(count: int = 16000, canonical: int = 1, is_contradicted: bool = True) -> Lesson:
    """Returns scenes that are their own image prompt, the condition `picture`.

    Of four examples, two have an empty caption and one an ordinary caption. The caption of the
    fourth names the shape alone, and its image prompt shows another shape: what is named follows
    the text, the rest the picture.

    Args:
        count: The number of scenes.
        canonical: The large, plain, centred scenes for each placed one and each with a fill; an
            encoder that was trained without labels needs more of them before shapes are read.
        is_contradicted: Whether the fourth example is as described; otherwise its caption is empty
            and the scene its own image prompt.
    """
    scenes, captions = mixed(count, (("canonical", canonical), ("placed", 1), ("fills", 1)))

    def differs(index: int) -> bool:
        return is_contradicted and index % 4 == CONTRADICTED

    shown = [
        reshaped(scene, Random(f"reshaped {index}")) if differs(index) else scene
        for index, scene in enumerate(scenes)
    ]

    def caption(index: int, random: Random) -> str:
        if differs(index):
            return random.choice(SHAPE_FRAMES).format(article(scenes[index].items[0].shape))
        return captions(index, random) if index % 4 == CAPTIONED else ""

    values = {"picture": in_bytes(draw_pictures, shown)}
    name = f"pictures {count} {canonical} {is_contradicted}"
    return Lesson(name, in_bytes(draw_pictures, scenes), caption, values)


def reshaped(scene: Scene, random: Random) -> Scene:
    """Returns a scene whose first object has another shape."""
    item = scene.items[0]
    shape = random.choice([name for name in SHAPES if name != item.shape])
    return replace(scene, items=(replace(item, shape=shape), *scene.items[1:]))


def coloured(count: int = 12000) -> Lesson:
    """Returns scenes with their palettes as somebody might write them, the condition `""`.

    Args:
        count: The number of scenes.
    """
    scenes, captions = mixed(count, (("canonical", 1), ("placed", 1)))
    pixels = in_bytes(draw_pictures, scenes)
    random = Random(5)
    palettes: list[Palette] = [[] for _ in scenes]
    sizes = random.choices(PALETTE_SIZES, SIZE_SHARES, k=count)
    for size in PALETTE_SIZES:
        rows = [row for row in range(count) if sizes[row] == size]
        for row, palette in zip(rows, main_colours(pixels[rows], size), strict=True):
            palettes[row] = as_written(palette, random)
    return Lesson(f"palettes {count}", pixels, captions, {"": palettes})


def known(count: int = 16000) -> Lesson:
    """Returns pictures of all kinds that the base model knows, without a condition.

    Args:
        count: The number of pictures.
    """
    pictures, captions = mixed(count, KNOWN)
    return Lesson(f"known {count}", in_bytes(draw_pictures, pictures), captions)


def as_written(palette: Palette, random: Random) -> Palette:
    """Returns the palette of a picture as somebody might write it.

    Args:
        palette: Colours with their shares, the heaviest first.
        random: The source of randomness.
    """
    if random.random() < ALONE:
        return palette[:1]
    how = random.random()
    if len(palette) == 2 and how < EQUAL:
        return [(name, 0.5) for name, _ in palette]
    if len(palette) == 2 and how < EQUAL + SCALED:
        return [(name, share * 3 ** random.uniform(-1, 1)) for name, share in palette]
    return palette


def main_colours(pictures: UInt8[Tensor, "count 3 size size"], colours: int) -> list[Palette]:
    """Returns the main colours of pictures with their shares, the heaviest first.

    They are the means of k-means, which begins at colours that are far apart. Pixels are averaged
    two by two before, which mixes colours only along edges.

    Args:
        pictures: Pictures as bytes.
        colours: The greatest number of colours; a picture may have fewer.
    """
    if not len(pictures):
        return []
    device = drawing_device()
    named: list[Palette] = []
    for part in pictures.split(CHUNK):
        points = avg_pool2d(part.to(device).float(), 2).flatten(2).mT
        means, shares = _means(points, colours)
        named += [_named(*each) for each in zip(means.round().long(), shares, strict=True)]
    return named


def _means(
    points: Float[Tensor, "count points 3"], colours: int
) -> tuple[Float[Tensor, "count colours 3"], Float[Tensor, "count colours"]]:
    """Returns the means of k-means, and the share of the points that are nearest to each."""
    means, shares = _far_apart(points, colours), points.new_zeros(len(points), colours)
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, means).argmin(-1)
        belongs = one_hot(nearest, colours).float()
        shares = belongs.mean(1)
        sums = belongs.mT @ points / points.shape[1]
        means = torch.where(shares[..., None] > 0, sums / shares[..., None].clamp(min=1e-6), means)
    return means, shares


def _far_apart(
    points: Float[Tensor, "count points 3"], colours: int
) -> Float[Tensor, "count colours 3"]:
    """Returns the first point of each picture, and others far from those before."""
    chosen = points[:, :1]
    while chosen.shape[1] < colours:
        farthest = torch.cdist(points, chosen).amin(-1).argmax(-1)
        chosen = torch.cat(
            [chosen, points[torch.arange(len(points), device=points.device), farthest][:, None]], 1
        )
    return chosen


def _named(means: Tensor, shares: Tensor) -> Palette:
    weights: dict[str, float] = {}
    for (red, green, blue), share in zip(means.tolist(), shares.tolist(), strict=True):
        if share > 0:
            name = f"#{red:02x}{green:02x}{blue:02x}"
            weights[name] = weights.get(name, 0.0) + share
    return sorted(weights.items(), key=lambda item: -item[1])
