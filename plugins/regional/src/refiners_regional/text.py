"""The features of the texts of regions, in branches of equal length."""

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Final

from torch import Tensor

from refiners_core.models.diffusion import COND, UNCOND, GenerationRequest
from refiners_regional.region import Region

TEXTS: Final = ("text", "pooled")
"""The context keys of the features of prompts: those of tokens, and of whole texts."""


def region_texts(
    regions: Sequence[Region], request: GenerationRequest, key: str, factors: Mapping[str, float]
) -> dict[str, dict[str, Tensor]]:
    """Returns the features of the texts of one region, by context key and branch.

    The branch without the prompt is left out where all pictures have the negative prompt of the
    generation, unless adapters act in this region alone, which may change how texts are encoded.

    Args:
        regions: The region in each picture, or one for all of them.
        request: The generation.
        key: The context key, to which `{}` is the name of the features.
        factors: The factors of the scales of adapters in the region.
    """
    count = request.count
    texts = {COND: [region.prompt for region in regions]}
    negatives = [region.negative for region in regions]
    if UNCOND in request.branches and (factors or any(text is not None for text in negatives)):
        outer = request.prompts[UNCOND]
        if len(negatives) == 1:
            negatives = negatives * count
        texts[UNCOND] = [
            text if given is None else given for given, text in zip(negatives, outer, strict=True)
        ]
    return encoded_texts(texts, request, key, factors)


def encoded_texts(
    texts: Mapping[str, Sequence[str]],
    request: GenerationRequest,
    key: str,
    factors: Mapping[str, float],
) -> dict[str, dict[str, Tensor]]:
    """Returns the features of texts, by context key and branch.

    Args:
        texts: For each branch, a text for all pictures or one for each.
        request: The generation.
        key: The context key, to which `{}` is the name of the features.
        factors: The factors of the scales of adapters.
    """
    values: dict[str, dict[str, Tensor]] = {}
    for branch, items in texts.items():
        each = [*items] * (request.count if len(items) == 1 else 1)
        encoded = request.read(each, scales=factors, is_negative=branch == UNCOND)
        for name in TEXTS:
            if name in encoded:
                values.setdefault(key.format(name), {})[branch] = encoded[name]
    return {name: tiled(branches) for name, branches in values.items()}


def tiled(branches: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the features of branches with as many tokens each.

    Repeating the tokens leaves attention to them unchanged.

    Args:
        branches: The features by branch, (rows, tokens, width), or (rows, width) of whole texts.
    """
    lengths = {x.shape[1] for x in branches.values() if x.ndim == 3}
    if len(lengths) < 2:
        return dict(branches)
    longest = lcm(*lengths)
    return {name: x.repeat(1, longest // x.shape[1], 1) for name, x in branches.items()}
