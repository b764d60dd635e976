"""Measures the palette: how far the colours of pictures are from those requested."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from refiners_core import Adapter
from refiners_core.measure import Figure, Measure, Samples, Settings
from refiners_core.picture import to_images
from refiners_playground.colour_distance import palette_distance
from refiners_playground.measure.sampling import BASE, generated, named_scenes
from refiners_playground.scene import draw

COLOURS: Final = 2
"""The colours of a measured picture: those of the object and the background."""
Palette = list[tuple[str, float]]
"""Colours as `#rrggbb`, each with its share of the picture."""
WEIGHTED, EQUAL = "CIEDE2000 of colours", "CIEDE2000, equal weights"


class Colours(Measure):
    """The distance of the two main colours of pictures from requested ones, in the best pairing.

    Prompts name one large shape and no colour; the palette has the colours of a held-out scene,
    with their shares or with equal weights.
    """

    base = BASE
    adapter = "palette"
    summary = "palettes of two colours beside prompts that name a shape and no colour"
    figures = (
        Figure(WEIGHTED, is_share=False, most=8, least_without=25),
        Figure(EQUAL, is_share=False, most=8, least_without=25),
    )

    def run(self, model: Any, adapter: Adapter | None, count: int, settings: Settings) -> Samples:
        scenes = named_scenes(count)
        prompts = [f"a large {scene.items[0].shape}" for scene in scenes]
        weighted = self.condition(count)
        equal: list[Palette] = [[(name, 1.0) for name, _ in palette] for palette in weighted]
        pixels = generated(model, prompts, settings, adapter, weighted)
        again = pixels if adapter is None else generated(model, prompts, settings, adapter, equal)
        outcomes = {WEIGHTED: _distances(weighted, pixels), EQUAL: _distances(weighted, again)}
        return Samples(outcomes, prompts, pixels)

    def condition(self, count: int) -> list[Palette]:
        """Returns the palettes of the held-out scenes."""
        return [main_colours(picture) for picture in draw(named_scenes(count))]


def main_colours(picture: Float[Tensor, "3 height width"], colours: int = COLOURS) -> Palette:
    """Returns the main colours of a picture in 0...1, by median cut and then k-means."""
    [image] = to_images(picture.unsqueeze(0))
    cut = image.quantize(colours, Image.Quantize.MEDIANCUT, kmeans=1)
    table = np.array(cut.getpalette() or []).reshape(-1, 3)
    counts = np.bincount(np.asarray(cut).ravel(), minlength=len(table))
    shares = counts / counts.sum()
    return [
        ("#{:02x}{:02x}{:02x}".format(*table[i]), float(shares[i]))
        for i in range(len(table))
        if counts[i]
    ]


def _distances(requested: list[Palette], pixels: Tensor) -> list[float]:
    drawn = [main_colours(picture) for picture in pixels]
    return [
        palette_distance([name for name, _ in wanted], [name for name, _ in colours])
        for wanted, colours in zip(requested, drawn, strict=True)
    ]
