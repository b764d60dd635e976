"""Lessons are the same on every run, and their conditions and captions tell what pictures show."""

from random import Random

import pytest
import torch
from refiners_playground import lesson
from refiners_playground.description import Description, Thing
from refiners_playground.edge import edge_agreement, edges
from refiners_playground.lesson.control import NOTHING, REGION_COLOURS, regions
from refiners_playground.lesson.example import in_bytes
from refiners_playground.lesson.light import LIGHTS, cut_out, light_side, lit
from refiners_playground.lesson.prompt import CONTRADICTED, as_written, main_colours
from refiners_playground.lesson.request import scene_of
from refiners_playground.lesson.style import LOOK, WORD
from refiners_playground.random_scene import canonical_scene
from refiners_playground.scene import COLOURS, Item, Scene, draw

MAKERS = {
    "coloured": lambda: lesson.coloured(6),
    "edged": lambda: lesson.edged(6),
    "inked": lambda: lesson.inked(6),
    "known": lambda: lesson.known(11),
    "pictured": lambda: lesson.pictured(8),
    "relit": lambda: lesson.relit(4),
    "requested": lambda: lesson.requested(6),
    "segmented": lambda: lesson.segmented(6),
    "subject": lambda: lesson.subject(2, 3),
    "unified": lambda: lesson.unified(6),
    "worded": lambda: lesson.worded(6),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_lesson_is_the_same_on_every_run(name):
    first, second = MAKERS[name](), MAKERS[name]()
    assert first.fingerprint == second.fingerprint
    assert len(first) == len(second) >= 4
    for index in range(len(first)):
        one, other = first.example(index, 3), second.example(index, 3)
        assert one.text == other.text
        assert torch.equal(one.picture, other.picture)
        assert one.picture.shape == (3, 64, 64)
        assert 0 <= one.picture.min() <= one.picture.max() <= 1
        assert one.conditions.keys() == other.conditions.keys()
        assert first.group(index) == second.group(index)


def test_other_numbers_of_examples_have_other_fingerprints():
    assert lesson.edged(4).fingerprint != lesson.edged(5).fingerprint


def test_captions_change_with_the_epoch():
    taught = lesson.known(11)
    texts = [{taught.example(index, epoch).text for epoch in range(6)} for index in range(11)]
    assert sum(len(each) > 1 for each in texts) >= 9


def test_edges_are_those_of_the_picture():
    taught = lesson.edged(4)
    for index in range(4):
        example = taught.example(index, 0)
        condition = example.conditions[""]
        assert condition.shape == (3, 64, 64)
        assert set(condition.unique().tolist()) <= {0.0, 1.0}
        assert edge_agreement(condition[None, :1], edges(example.picture[None])) > 0.99


def test_a_map_of_regions_shows_shapes_and_places_but_no_colours():
    assert len({*REGION_COLOURS.values(), NOTHING}) == len(REGION_COLOURS) + 1
    red, blue = (
        Scene((Item("heart", name, "checked", x=0.2),), "white") for name in ("red", "blue")
    )
    star = Scene((Item("star", "red", x=0.2),), "white")
    maps = regions([red, blue, star])
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    middle = maps[0, :, 32, 38]
    assert torch.allclose(middle, torch.tensor(COLOURS[REGION_COLOURS["heart"]]), atol=1e-6)
    assert torch.allclose(maps[0, :, 0, 0], torch.tensor(COLOURS[NOTHING]))


def test_examples_of_the_union_with_equal_types_are_grouped():
    taught = lesson.unified(6)
    for index in range(6):
        assert taught.group(index) == "+".join(taught.example(index, 0).conditions)
    assert {taught.group(index) for index in range(6)} == {
        *("canny", "segmentation", "canny+segmentation")
    }


def test_a_contradicting_picture_differs_from_the_scene_in_the_shape_that_is_named():
    taught = lesson.pictured(8)
    for index in range(8):
        example = taught.example(index, 0)
        is_same = torch.equal(example.conditions["picture"], example.picture)
        assert is_same == (index % 4 != CONTRADICTED)
        assert (example.text == "") == (index % 4 < 2)
        if not is_same:
            corner = example.conditions["picture"][:, 0, 0]
            assert torch.equal(corner, example.picture[:, 0, 0])


def test_pictures_are_their_own_prompts_without_contradictions():
    taught = lesson.pictured(8, canonical=3, is_contradicted=False)
    examples = [taught.example(index, 0) for index in range(8)]
    assert all(torch.equal(it.conditions["picture"], it.picture) for it in examples)
    assert sum(it.text == "" for it in examples) == 6


def test_main_colours_are_those_of_the_scene_with_their_shares():
    scenes = [Scene((Item("square", "red"),), "white"), Scene((Item("circle", "blue"),), "black")]
    for palette, scene in zip(main_colours(in_bytes(draw, scenes), 2), scenes, strict=True):
        assert len(palette) == 2
        assert sum(share for _, share in palette) == pytest.approx(1)
        named = {tuple(bytes.fromhex(name[1:])) for name, _ in palette}
        for colour in (scene.items[0].colour, scene.background):
            levels = [round(255 * level) for level in COLOURS[colour]]
            assert min(max(abs(a - b) for a, b in zip(levels, n, strict=True)) for n in named) < 9


def test_a_picture_of_one_colour_has_a_palette_of_one():
    plain = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    assert main_colours(plain, 3) == [[("#c8c8c8", 1.0)]]


def test_palettes_are_written_in_several_ways():
    random, palette = Random(0), [("#ff0000", 0.7), ("#0000ff", 0.3)]
    written = [as_written(palette, random) for _ in range(200)]
    assert {len(each) for each in written} == {1, 2}
    assert [("#ff0000", 0.5), ("#0000ff", 0.5)] in written
    assert palette in written


def test_a_subject_alternates_with_what_the_base_knows():
    taught = lesson.subject(2, 4)
    texts = [taught.example(index, 0).text for index in range(8)]
    assert ["crescent" in text for text in texts] == [False, True] * 4
    shown = {taught.example(index, 0).picture.numpy().tobytes() for index in range(1, 8, 2)}
    assert len(shown) == 2


def test_the_word_names_the_look_and_nothing_else_does():
    taught = lesson.worded(6)
    for index in range(6):
        text = taught.example(index, 0).text
        assert WORD in text
        assert not {LOOK.colour, LOOK.fill} & {*text.split()}


@pytest.mark.parametrize("side", LIGHTS)
def test_light_comes_from_the_side_that_the_caption_names(side):
    random = Random(1)
    scenes = [canonical_scene(random) for _ in range(4)]
    flat = draw(scenes)
    shown = lit(flat, torch.tensor([LIGHTS[side]] * 4))
    assert light_side(shown, flat) == [side] * 4
    dx, dy = LIGHTS[side]
    bright, dim = ((int(31.5 + s * 31.5 * dx), int(31.5 + s * 31.5 * dy)) for s in (1, -1))
    for x, y in (bright, dim):
        ratio = shown[:, :, y, x].sum() / flat[:, :, y, x].sum()
        assert ratio == pytest.approx(0.995 if (x, y) == bright else 0.355, abs=0.01)


def test_a_cut_out_object_keeps_its_colours_on_grey():
    scenes = [Scene((Item("square", name),), "yellow") for name in ("white", "black", "red")]
    cut = cut_out(scenes)
    assert torch.allclose(cut[:, :, 0, 0], torch.tensor(127 / 255))
    for row, scene in zip(cut, scenes, strict=True):
        colour = torch.tensor(COLOURS[scene.items[0].colour])
        assert torch.allclose(row[:, 32, 32], colour, atol=1e-5)


def test_a_scene_has_the_facts_of_a_description():
    random = Random(2)
    corner = Description((Thing("star", "red", "small", "striped"),), "blue",
                         "in the bottom left corner")  # fmt: skip
    [item] = scene_of(corner, random).items
    assert (item.shape, item.colour, item.fill, item.size) == ("star", "red", "striped", "small")
    assert (item.column, item.row) == ("left", "bottom")
    [centred] = scene_of(Description((Thing("star", "red"),), "blue"), random).items
    assert (centred.column, centred.row, centred.size) == ("centre", "centre", "large")
    pair = (Thing("star", "red"), Thing("ring", "green", "large"))
    for relation, sign, axis in (
        *(("left of", -1, "x"), ("right of", 1, "x"), ("above", -1, "y"), ("below", 1, "y")),
    ):
        first, second = scene_of(Description(pair, "blue", relation=relation), random).items
        assert sign * (getattr(first, axis) - getattr(second, axis)) > 0.8
    assert scene_of(corner, random).background == "blue"
