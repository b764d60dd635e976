"""How far the pictures of a batch take after its first one: what StyleAligned achieves."""

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
"""All pictures of a batch but the first are compared with the first."""
SHIFT = 1.0
"""The StyleAligned option `shift` that is measured with: look at the first picture more."""
END = 0.7
"""The share of the steps after which StyleAligned ends: the last ones finish each shape alone."""


def aligned_effect(
    model: LatentDiffusion, aligned: Adapter | None, count: int, settings: Settings
) -> dict[str, float]:
    """Returns how far pictures take after the first one of their batch of four prompts.

    Args:
        model: What generates.
        aligned: StyleAligned, worn by the model; None for what chance gives.
        count: How many pictures are compared with the first of their batch, a multiple of three.
        settings: How they are made.

    Returns:
        The shares (0...1) of pictures whose `background` and `colour` are read as those of the
        first, and whose `shape` is the prompted one.
    """
    recogniser, random = load_recogniser(), Random(13)
    hits = dict.fromkeys(("background", "colour", "shape"), 0)
    for batch in range(count // COMPARED):
        shapes = random.sample(SHAPES, BATCH)
        seed = settings.seed + batch * BATCH
        pixels = aligned_pictures(model, aligned, shapes, seed, settings)
        first, *others = recogniser.read(pixels)
        for reading, shape in zip(others, shapes[1:], strict=True):
            wanted = first | {"shape": shape}
            for name in hits:
                hits[name] += reading[name] == wanted[name]
    return {name: hit / (count // COMPARED * COMPARED) for name, hit in hits.items()}


@torch.no_grad()
def aligned_pictures(
    model: LatentDiffusion,
    aligned: Adapter | None,
    shapes: Sequence[str],
    seed: int,
    settings: Settings,
) -> Float[Tensor, "batch 3 height width"]:
    """Returns one picture for each shape; prompts name neither its colour nor its background."""
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
