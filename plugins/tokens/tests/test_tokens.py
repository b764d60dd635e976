"""Merged tokens and tiles, and the draws of both."""

import copy
from typing import Any

import pytest
import torch
from refiners_tokens.grid import Grid, grids
from refiners_tokens.merge import DrawSplits, TokenMerging
from refiners_tokens.merging import Merge, Split
from refiners_tokens.tile import HyperTile, Tiling, side_counts
from torch import Tensor

from refiners_core import Context
from refiners_core.models.diffusion import LatentDiffusion
from refiners_core.models.unet import UNetConfig
from refiners_core.testing import tiny_model

SIZES: dict[str, Any] = {"channels": (8,), "layers": (1,), "depths": (1,), "heads": (2,)}
BARE = tiny_model(unet=UNetConfig(**SIZES, text_width=8, groups=4))


def generated(model: LatentDiffusion, **options: Any) -> Tensor:
    arguments: dict[str, Any] = {"steps": 2, "guidance": 3.0, "seed": 7, "sampler": "ddim"}
    arguments |= {"output": "latents", "progress": False}
    return model.generate("a red circle", **arguments | options)


def sources(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


@pytest.mark.parametrize(("height", "width"), [(65, 33), (27, 20), (3, 2)])
@pytest.mark.parametrize("count", [1, 40, 10**6])
def test_each_token_comes_back_to_its_place(height: int, width: int, count: int):
    tokens = height * width
    x = torch.arange(tokens).repeat(4, 1)[..., None].float()
    split = Split.drawn(Grid(height, width, 0), (2, 2), sources(2)).for_rows(4, x.device)
    merge = Merge.of(torch.randn(4, tokens, 3), split, min(count, tokens))
    gone = min(count, split.sources.shape[1])
    assert merge.apply(x).shape == (4, tokens - gone, 1)
    back = merge.undo(merge.apply(x))
    assert (back == x).sum() >= 4 * (tokens - 2 * gone)
    every = torch.cat([split.destinations, split.sources], dim=1).sort().values
    assert (every == torch.arange(tokens)).all()  # also those of the border, outside all cells
    untouched = Merge.of(torch.randn(4, tokens, 3), split, 0)
    assert torch.equal(untouched.undo(untouched.apply(x)), x)


def test_a_merged_token_has_the_result_of_the_one_it_resembles():
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])[None]  # 2 x 2
    split = Split.drawn(Grid(2, 2, 0), (2, 2), None)
    merge = Merge.of(x, split, 1)
    assert split.destinations.tolist() == [[0]]
    mean = (x[0, 0] + x[0, 1]) / 2
    torch.testing.assert_close(merge.undo(merge.apply(x))[0], torch.stack([mean, mean, *x[0, 2:]]))


def test_destinations_are_drawn_from_the_seed_of_each_picture_and_the_step():
    model = copy.deepcopy(BARE)
    drawn: list[Tensor] = []
    attention = model.slot("unet.self_attention")[0].layer
    attention.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[0].clone()))
    TokenMerging(key="tome").inject(model)
    first = generated(model, seed=[3, 4], count=2)
    assert torch.equal(generated(model, seed=[3, 4], count=2), first)
    assert torch.equal(generated(model, seed=[3, 5], count=2)[0], first[0])
    assert drawn[0].shape == (4, 32, 8)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    given = generated(model, seed=None, latents=noise)
    assert torch.equal(generated(model, seed=None, latents=noise), given)


@pytest.mark.parametrize("grid", list(grids(135, 240, 3)))
def test_a_map_of_any_size_has_a_destination_for_each_whole_cell(grid: Grid):
    split = Split.drawn(grid, (2, 2), sources(2))
    assert split.destinations.shape == (2, (grid.height // 2) * (grid.width // 2))
    assert (split.destinations // grid.width).max() < grid.height // 2 * 2
    assert len({*split.destinations[0].tolist(), *split.sources[0].tolist()}) == (
        grid.height * grid.width
    )


def test_a_draw_is_of_the_seed_of_the_picture_and_of_the_step_alone():
    draw = DrawSplits("tome", (2, 2), 0, is_random=True)

    def destinations(seeds: tuple[int, ...], step: int) -> Tensor:
        values = {"tome.scale": torch.tensor(1.0), "branches": ("uncond", "cond")}
        context = Context({**values, "seeds": seeds, "step": step})
        draw(torch.zeros(4, 4, 8, 8), context=context)
        return context["tome.splits"][64].destinations

    first = destinations((3, 4), 0)
    assert torch.equal(destinations((3, 4), 0), first)
    assert torch.equal(first[:2], first[2:])  # the same in both branches
    other = destinations((3, 5), 0)
    assert torch.equal(other[0], first[0])
    assert not torch.equal(other[1], first[1])
    assert not torch.equal(destinations((3, 4), 1), first)
    assert torch.equal(destinations((), 0)[0], destinations((0, 9), 0)[0])  # without seeds


def test_branches_share_destinations_and_pictures_do_not():
    split = Split.drawn(Grid(8, 8, 0), (2, 2), sources(2)).for_rows(4, torch.device("cpu"))
    assert torch.equal(split.destinations[:2], split.destinations[2:])
    assert not torch.equal(split.destinations[0], split.destinations[1])


@pytest.mark.parametrize("make", [lambda: TokenMerging(ratio=0.0), lambda: HyperTile()])
def test_nothing_to_merge_or_tile_changes_no_bit(make: Any):
    model = copy.deepcopy(BARE)
    bare = generated(model)  # 8 x 8 positions; tiles of 256 pixels have 32 x 32
    with make().on(model):
        assert torch.equal(generated(model), bare)


def test_sides_of_tiles_are_divisors():
    assert side_counts(64, 32, 2) == (2, 1)
    assert side_counts(96, 32, 2) == (3, 2)
    assert side_counts(96, 32, 1) == (3,)
    assert side_counts(97, 32, 2) == (1,)  # a prime
    assert side_counts(90, 32, 9) == (2, 1)
    assert side_counts(8, 32, 2) == (1,)


def attended_by_hand(attend: Any, q: Tensor, k: Tensor, v: Tensor, tiling: Tiling) -> Tensor:
    """Attends within each tile of a map, one after the other."""
    height, width = tiling.grid.height // tiling.rows, tiling.grid.width // tiling.columns
    maps = [x.unflatten(1, (tiling.grid.height, tiling.grid.width)) for x in (q, k, v)]
    out = torch.empty_like(maps[0])
    for top in range(0, tiling.grid.height, height):
        for left in range(0, tiling.grid.width, width):
            area = slice(None), slice(top, top + height), slice(left, left + width)
            tile = attend(*[x[area].flatten(1, 2) for x in maps])
            out[area] = tile.unflatten(1, (height, width))
    return out.flatten(1, 2)


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (1, 2), (3, 1)])
def test_attention_stays_in_its_tile(rows: int, columns: int):
    attend = BARE.slot("unet.self_attention.attend")[0].layer
    q, k, v = (torch.randn(2, 6 * 12, 8) for _ in range(3))
    tiling = Tiling(Grid(6, 12, 0), rows, columns)
    expected = attended_by_hand(attend, q, k, v, tiling)
    torch.testing.assert_close(
        tiling.undo(attend(*map(tiling.apply, (q, k, v)))), expected, rtol=1e-5, atol=1e-5
    )
    assert torch.equal(tiling.undo(tiling.apply(q)), q)


@pytest.mark.parametrize("size", [(64, 96), (104, 56), (92, 64)])  # 23 of 92 / 4 is a prime
def test_a_generation_in_tiles_is_that_by_hand(size: tuple[int, int]):
    model, seen = copy.deepcopy(BARE), list[str]()
    options: dict[str, Any] = {"size": size, "steps": 1}
    with HyperTile(key="tile", tile_size=32, swap_size=1).on(model):
        tiled = generated(model, **options)
    height, width = size[1] // 4, size[0] // 4
    tiling = Tiling(
        Grid(height, width, 0), side_counts(height, 8, 1)[0], side_counts(width, 8, 1)[0]
    )
    for seat in model.slot("unet.self_attention.attend"):
        plain = seat.layer.forward
        seat.layer.forward = lambda q, k, v, context=None, plain=plain: (
            seen.append("tiled") or attended_by_hand(plain, q, k, v, tiling)
        )
    torch.testing.assert_close(generated(model, **options), tiled, rtol=1e-4, atol=1e-5)
    assert seen
    assert tiling.rows * tiling.columns > 1


def test_maps_of_levels_round_up():
    assert list(grids(135, 240, 3)) == [
        Grid(135, 240, 0),
        Grid(68, 120, 1),
        Grid(34, 60, 2),
        Grid(17, 30, 3),
    ]
