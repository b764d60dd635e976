"""Measures how close the colours of pictures are to those of a requested palette."""

from colour_distance import palette_distance
from refiners_palette.palette import Palette
from refiners_playground.effect import Settings, generated, named_scenes
from refiners_playground.scene import draw

from refiners_core import Adapter
from refiners_core.models.diffusion import LatentDiffusion

COLOURS = 2
"""The colours of a measured picture: those of the object and the background."""


def palette_effect(
    model: LatentDiffusion,
    adapter: Adapter,
    count: int,
    settings: Settings,
    scale: float = 1.0,
    *,
    is_weighted: bool = True,
) -> float:
    """Returns the mean CIEDE2000 distance of requested and drawn colours over held-out scenes.

    Prompts name the shape and no colour.

    Args:
        model: The model, wearing the adapter.
        adapter: The adapter.
        count: The number of pictures.
        settings: The settings of the generations.
        scale: The strength of the adapter.
        is_weighted: Whether palettes have the shares of the scenes; otherwise those are equal.
    """
    scenes = named_scenes(count)
    requested = [Palette.of(pixels, COLOURS) for pixels in draw(scenes)]
    if not is_weighted:
        requested = [Palette([name for name, _ in palette]) for palette in requested]
    prompts = [f"a large {scene.items[0].shape}" for scene in scenes]
    pictures = generated(model, prompts, settings, {adapter: requested}, scale)
    distances = [
        palette_distance([name for name, _ in wanted], [name for name, _ in Palette.of(p, COLOURS)])
        for wanted, p in zip(requested, pictures, strict=True)
    ]
    return sum(distances) / count
