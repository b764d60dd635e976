"""Token merging, held to the authors' package inside diffusers' network."""

from typing import Any

import pytest
import tomesd
import torch
from refiners_tokens.grid import Grid
from refiners_tokens.merge import TokenMerging
from refiners_tokens.merging import Merge, Split
from tomesd.merge import bipartite_soft_matching_random2d

from refiners_core.models.formats.open import open_folder


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (16, 16)),
        ({"ratio": 0.75, "max_downsample": 2}, (16, 16)),
        ({"ratio": 0.7, "max_downsample": 4, "sx": 3, "sy": 2}, (24, 16)),
        ({"ratio": 0.6, "max_downsample": 2}, (14, 11)),  # odd sides, at all levels
        ({"ratio": 0.0}, (16, 16)),
    ],
)
@torch.no_grad()
def test_a_prediction_equals_that_of_the_authors(
    options: dict[str, Any], size: tuple[int, int], sd15_folder: Any, differ: Any
):
    pipe, folder = sd15_folder
    model = open_folder(folder)
    latents = torch.randn(2, 4, *size)
    text = torch.randn(2, 7, model.unet.config.text_width)
    context = {"timestep": torch.tensor(421), "text": text, "branches": ("uncond", "cond")}
    bare = pipe.unet(latents, 421, text).sample
    tomesd.apply_patch(pipe, use_rand=False, **options)
    try:
        theirs = pipe.unet(latents, 421, text).sample
    finally:
        tomesd.remove_patch(pipe)
    with TokenMerging(use_rand=False, **options).on(model) as tome:
        ours = model.unet(latents, context=context | {tome.scale_key: torch.tensor(1.0)})
    assert differ(ours, theirs) <= 1e-5
    assert (differ(ours, bare) > 1e-3) == (options.get("ratio") != 0.0)


@pytest.mark.parametrize(("height", "width"), [(65, 33), (27, 48), (8, 8)])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
def test_drawn_tokens_are_merged_as_by_the_authors(height: int, width: int, ratio: float):
    tokens = height * width
    x, count = torch.randn(2, tokens, 4, dtype=torch.float64), int(tokens * ratio)
    merge, unmerge = bipartite_soft_matching_random2d(
        x, width, height, 2, 2, count, generator=torch.Generator().manual_seed(5)
    )
    split = Split.drawn(Grid(height, width, 0), (2, 2), [torch.Generator().manual_seed(5)])
    ours = Merge.of(x, split.for_rows(2, x.device), count)
    torch.testing.assert_close(ours.undo(ours.apply(x)), unmerge(merge(x)))
    assert ours.apply(x).shape == merge(x).shape
