from dataclasses import replace
from itertools import permutations
from random import Random

import pytest
import refiners
import torch
from refiners_playground.ink_reader import read_ink
from refiners_playground.measure.sampling import generated
from refiners_playground.measure.style import INKED, Ink
from refiners_playground.pattern import FILLS
from refiners_playground.random_scene import inked, placed_scene, varied_scene
from refiners_playground.recogniser import WEIGHTS
from refiners_playground.scene import COLOURS, INKS, Item, Scene, draw, held_out_scenes
from safetensors import safe_open

from refiners_core.measure import Settings

HELD_OUT = list(held_out_scenes())
LORA = WEIGHTS.with_name("lora_ink.safetensors")


def test_the_program_reads_style_and_colours_of_ink_drawings():
    readings = read_ink(draw([inked(scene) for scene in HELD_OUT]))
    assert sum(reading.is_inked for reading in readings) >= 0.97 * len(HELD_OUT)
    for reading, scene in zip(readings, HELD_OUT, strict=True):
        assert reading.colour == scene.items[0].colour
        assert reading.background == scene.background


@pytest.mark.parametrize("fill", FILLS)
def test_the_program_does_not_take_a_fill_for_ink(fill: str):
    scenes = [replace(s, items=(replace(s.items[0], fill=fill),)) for s in HELD_OUT[::2]]
    assert sum(reading.is_inked for reading in read_ink(draw(scenes))) <= 0.02 * len(scenes)


def test_the_program_does_not_take_a_texture_or_small_object_for_ink():
    random = Random(17)
    scenes = [placed_scene(random, patterned=0.5, textured=0.5) for _ in range(128)]
    assert sum(reading.is_inked for reading in read_ink(draw(scenes))) <= 0.02 * len(scenes)


def test_a_picture_of_one_colour_is_read():
    (reading,) = read_ink(torch.full((1, 3, 64, 64), 0.96))
    assert (reading.is_inked, reading.colour, reading.background) == (False, "white", "white")


def test_a_line_of_ink_differs_from_the_colours_on_both_sides():
    pairs = list(permutations(COLOURS, 2))
    pictures = draw([inked(Scene((Item("square", c, radius=0.5),), b)) for c, b in pairs])
    # The left edge of the square lies 12.8 pixels left of the middle.
    lines = pictures[:, :, 32, 20]
    for line, (colour, background) in zip(lines, pairs, strict=True):
        assert tuple(round(x, 4) for x in line.tolist()) in INKS
        for name in (colour, background):
            assert (line - torch.tensor(COLOURS[name])).norm() > 0.4


def test_ink_leaves_the_middle_and_the_corners_as_they_are():
    flat = draw(HELD_OUT)
    changed = (flat != draw([inked(scene) for scene in HELD_OUT])).any(1)
    assert not changed[:, :2].any()
    assert changed.float().mean((1, 2)).max() < 0.35


def test_each_scene_of_a_batch_has_its_own_style():
    random = Random(3)
    scenes = [varied_scene(random) for _ in range(40)]
    mixed = [inked(scene) if i % 2 else scene for i, scene in enumerate(scenes)]
    pictures = draw(mixed)
    assert torch.equal(pictures[::2], draw(scenes[::2]))
    assert torch.equal(pictures[39:], draw(mixed[39:]))
    assert not torch.equal(pictures[1::2], draw(scenes[1::2]))


def test_the_lora_is_small_and_has_the_names_that_diffusers_writes():
    assert LORA.stat().st_size <= 500_000
    with safe_open(LORA, "pt") as file:
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.float16}
    assert {name.rpartition(".lora_")[2] for name in names} == {"A.weight", "B.weight"}
    assert all(name.startswith("unet.") for name in names)


def test_the_lora_draws_in_ink_and_at_scale_0_does_nothing():
    model, settings = refiners.load_model("playground"), Settings(steps=12)
    prompts = ["a red heart on a white background"]
    bare = generated(model, prompts, settings)
    with refiners.load_adapter("lora-ink").on(model) as style:
        assert torch.equal(bare, generated(model, prompts, settings, style, scale=0.0))
        on = Ink().values(model, style, 8, settings)
        off = Ink().values(model, None, 8, settings)
    assert on[INKED] >= 0.75
    assert off[INKED] == 0
    assert on["colour"] == on["background"] == 1
