"""The palette keeps the contract of adapters, reads colours in every form, and shows its effect."""

import pickle
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refiners
import torch
from PIL import Image
from refiners_palette.adapter import PaletteAdapter
from refiners_palette.palette import Palette, read_palettes
from torch import Tensor

from refiners_core import Source
from refiners_core.errors import ConditionError, Notice, WeightsError
from refiners_core.testing import LAWS, AdapterCase, tiny_model
from refiners_core.weights import read, write

COLOURS = [("#d02020", 1), ("white", 3)]


def untrained() -> PaletteAdapter:
    torch.manual_seed(3)  # the same weights each time
    return PaletteAdapter(key="palette")


def bits(latents: Tensor) -> bytes:
    return latents.numpy().tobytes()


def targets() -> list[tuple[str, str]]:
    manifest = tomllib.loads((files("refiners_palette") / "adapter.toml").read_text())
    variants = manifest["adapter"]["palette"]["variant"]
    (same,) = {tuple((t["slot"], t["stage"]) for t in variant["targets"]) for variant in variants}
    return list(same)


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_contract(law: Callable[[AdapterCase], None]):
    law(AdapterCase(untrained, condition=COLOURS, targets=targets()))


# --- colours ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "colours",
    [
        [("#ffffff", 3), ("#ff0000", 1)],
        [("red", 0.25), ("white", 0.75)],
        (("#F00", 2), ((255, 255, 255), 6)),
        [[[255, 0, 0], 1], ["white", 3]],
    ],
)
def test_colours_in_every_form_are_one_palette(colours: Any):
    palette = Palette(colours)
    assert palette == (("#ffffff", 0.75), ("#ff0000", 0.25))
    assert read_palettes(colours) == [palette] == [pickle.loads(pickle.dumps(palette))]


def test_colours_without_weights_share_the_picture():
    assert Palette(["blue", (0, 255, 0)]) == (("#0000ff", 0.5), ("#00ff00", 0.5))


def test_lists_of_palettes_are_told_from_lists_of_colours():
    several = [["red", "blue"], [("white", 2)], Palette(["black"])]
    assert [len(palette) for palette in read_palettes(several)] == [2, 1, 1]
    assert len(read_palettes([(1, 2, 3), (4, 5, 6)])) == 1
    assert len(read_palettes([[(1, 2, 3)], [(4, 5, 6)]])) == 2


def flag() -> Image.Image:
    levels = np.full((40, 60, 3), (250, 250, 250), np.uint8)
    levels[:10] = (200, 30, 40)
    return Image.fromarray(levels)


def test_the_colours_of_a_picture_come_with_their_shares():
    palette = Palette.of(flag(), 2)
    assert palette == (("#fafafa", 0.75), ("#c81e28", 0.25))
    assert Palette.of(flag()) == palette  # it has no more colours
    assert read_palettes([flag(), flag().rotate(180)]) == [palette, palette]


@pytest.mark.parametrize("colours", [0, 9])
def test_a_palette_of_a_picture_has_one_to_eight_colours(colours: Any):
    with pytest.raises(ConditionError, match="1 to 8 colours"):
        Palette.of(flag(), colours)
    with pytest.raises(ConditionError, match="of one picture"):
        Palette.of([flag()] * 2)


# --- files and weights -------------------------------------------------------------------------


def generate(model: Any, conditions: Any, **options: Any) -> Tensor:
    fixed: dict[str, Any] = {"steps": 2, "seed": 7, "output": "latents", "progress": False}
    return model.generate("a red circle", conditions=conditions, **fixed | options)


def test_untrained_it_changes_nothing_and_loading_says_so(tmp_path: Path):
    model = tiny_model()
    bare = generate(model, {})
    with pytest.warns(Notice, match="has no weights for sd15, so it begins untrained"):
        adapter = refiners.load_adapter("palette", model)
    assert bits(generate(model, {adapter: COLOURS})) == bits(bare)
    adapter.save(tmp_path / "palette.safetensors")
    adapter.eject()
    again = refiners.load_adapter(tmp_path / "palette.safetensors", model)
    ours, theirs = again.published(), read(tmp_path / "palette.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_each_picture_may_have_a_palette():
    model, adapter = AdapterCase(untrained).bound()
    adapter.inject(model)
    both = generate(model, {adapter: [["red"], ["blue", "white"]]}, count=2)
    second = generate(model, {adapter: ["blue", "white"]}, seed=8)
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-4)


def test_weights_of_colours_count():
    model, adapter = AdapterCase(untrained).bound()
    adapter.inject(model)
    made = [bits(generate(model, {adapter: [("red", w), ("blue", 1)]})) for w in (1, 2, 1)]
    assert made[0] == made[2] != made[1]


def test_equal_colours_are_one_with_the_sum_of_their_weights():
    assert Palette(["red", "#f00", (255, 0, 0)]) == Palette(["red"])
    assert Palette(["red", ("red", 2), "blue"]) == Palette([("red", 3), ("blue", 1)])


def test_other_files_are_refused(tmp_path: Path):
    write({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    adapter = PaletteAdapter(weights=lambda _: Source({"weights": tmp_path / "other.safetensors"}))
    with pytest.raises(WeightsError, match="not the weights of a palette adapter"):
        adapter.inject(tiny_model())


# --- effect ------------------------------------------------------------------------------------


def test_pictures_of_the_playground_have_the_colours():
    model = refiners.load_model("playground")
    adapter = refiners.load_adapter("palette", model)
    requested = [
        Palette([("#2750d7", 3), ("#f6e12e", 1)]),
        Palette([("#24994a", 1), ("#f2f2f2", 3)]),
    ]

    def distance(conditions: Any) -> float:
        pictures = model.generate(
            ["a large heart", "a large star"], conditions=conditions, steps=8, guidance=4.0,
            seed=7, output="tensor", progress=False,
        )  # fmt: skip
        pairs = zip(requested, pictures, strict=True)
        return max(_distance(wanted, Palette.of(picture, 2)) for wanted, picture in pairs)

    assert distance({adapter: requested}) < 40 < distance({adapter: None})


def _distance(first: Palette, second: Palette) -> float:
    """Returns the largest difference of a level, in 0...255, in the best pairing."""
    wanted, drawn = (palette.numbers()[:2, :3] * 255 for palette in (first, second))
    return min(float((wanted - rows).abs().max()) for rows in (drawn, drawn.flip(0)))
