"""Measures StyleAligned: how often the pictures of a batch share the look of its first."""

from collections.abc import Sequence
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from refiners_core import Adapter, Condition
from refiners_core.models.diffusion import LatentDiffusion
from refiners_playground.effect import Settings
from refiners_playground.recogniser import load_recogniser
from refiners_playground.scene import SHAPES

BATCH = 4
COMPARED = BATCH - 1
"""The number of pictures per batch that are compared with the first."""
SHIFT = 1.0
"""The `shift` of StyleAligned in measurements: the others attend to the first picture more."""
END = 0.7
"""The share of the steps after which StyleAligned ends; the last steps finish each shape alone."""


def aligned_effect(
    model: LatentDiffusion, aligned: Adapter | None, count: int, settings: Settings
) -> dict[str, float]:
    """Measures how often pictures look like the first of their batch of four prompts.

    Args:
        model: The model.
        aligned: StyleAligned, worn by the model; None measures the rate by chance.
        count: The number of pictures compared with the first of their batch, a multiple of three.
        settings: The settings of the generations.

    Returns:
        The shares (0...1) of pictures whose `background` and `colour` are recognised as those of
        the first, and whose `shape` is recognised as the prompted one.
    """
    recogniser, random = load_recogniser(), Random(13)
    hits = dict.fromkeys(("background", "colour", "shape"), 0)
    for batch in range(count // COMPARED):
        shapes = random.sample(SHAPES, BATCH)
        seed = settings.seed + batch * BATCH
        pixels = aligned_pictures(model, aligned, shapes, seed, settings)
        first, *others = recogniser.read(pixels)
        for reading, shape in zip(others, shapes[1:], strict=True):
            expected = first | {"shape": shape}
            for name in hits:
                hits[name] += reading[name] == expected[name]
    return {name: hit / (count // COMPARED * COMPARED) for name, hit in hits.items()}


@torch.no_grad()
def aligned_pictures(
    model: LatentDiffusion,
    aligned: Adapter | None,
    shapes: Sequence[str],
    seed: int,
    settings: Settings,
) -> Float[Tensor, "batch 3 height width"]:
    """Generates one picture per shape; the prompts name neither colour nor background."""
    conditions = dict.fromkeys(model.adapters) | (
        {} if aligned is None else {aligned: Condition(end=END)}
    )
    return model.generate(
        [f"a large {shape}" for shape in shapes],
        conditions=conditions,
        steps=settings.steps,
        guidance=settings.guidance,
        seed=seed,
        output="tensor",
        progress=False,
    )
