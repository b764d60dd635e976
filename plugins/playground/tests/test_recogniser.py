from random import Random

import pytest
from refiners_playground.picture import draw_pictures
from refiners_playground.random_scene import (
    canonical_scene,
    inked,
    pair_scene,
    placed_scene,
    random_face,
    subject_scene,
)
from refiners_playground.recogniser import (
    ATTRIBUTES,
    WEIGHTS,
    agreement,
    attributes,
    labels,
    load_recogniser,
    pair_agreement,
)
from refiners_playground.scene import Item, Scene, draw, held_out_scenes

STAR = Item("star", "red", radius=0.36, x=-0.5)
RING = Item("ring", "blue", radius=0.36, x=0.5)


def test_the_recogniser_is_as_accurate_on_drawn_scenes_as_documented():
    random = Random(2_000_003)
    scenes = [placed_scene(random) for _ in range(154)] + list(held_out_scenes())
    shares = agreement(load_recogniser(), draw(scenes), scenes)
    assert len(scenes) == 256
    assert shares["shape"] >= 0.97
    assert shares["colour"] >= 0.99
    assert shares["background"] >= 0.99


def test_the_recogniser_reads_held_out_pairs_with_what_belongs_together():
    random = Random(2_000_003)
    scenes = [pair_scene(random, held_out=True) for _ in range(128)]
    outcomes = pair_agreement(load_recogniser().read_scenes(draw(scenes)), scenes)
    for name, least in (("objects", 0.98), ("bound", 0.93), ("relation", 0.93)):
        assert sum(outcomes[name]) >= least * len(scenes)


def test_the_recogniser_reads_every_attribute_of_a_scene():
    scene = Scene((Item("heart", "pink"),), "green")
    assert load_recogniser().read(draw([scene])) == [attributes(scene)]


def test_the_recogniser_reads_where_two_objects_are():
    [reading] = load_recogniser().read_scenes(draw([Scene((RING, STAR), "white")]))
    assert [item.shape for item in reading.items] == ["star", "ring"]
    for item, truth in zip(reading.items, (STAR, RING), strict=True):
        assert (item.colour, item.fill, item.size) == (truth.colour, "plain", "small")
        assert (item.x, item.y, item.radius) == pytest.approx((truth.x, 0, 0.36), abs=0.06)
    assert (reading.background, reading.style) == ("white", "flat")


def test_the_recogniser_reads_the_held_out_shape():
    random = Random(5)
    scenes = [subject_scene(random) for _ in range(64)]
    shapes = [reading["shape"] for reading in load_recogniser().read(draw(scenes))]
    assert shapes.count("crescent") >= 60


def test_the_recogniser_tells_faces_from_objects_and_reads_their_hair():
    random = Random(6)
    faces = [random_face(random, held_out=True) for _ in range(64)]
    scenes = [canonical_scene(random) for _ in range(64)]
    readings = load_recogniser().read_pictures(draw_pictures([*faces, *scenes]))
    assert [r["subject"] for r in readings[:64]].count("face") >= 63
    assert [r["subject"] for r in readings[64:]].count("objects") >= 63
    pairs = list(zip(readings, faces, strict=False))
    assert sum(reading["hair"] == face.hair for reading, face in pairs) >= 62
    assert sum(reading["background"] == face.background for reading, face in pairs) >= 62


def test_the_recogniser_reads_styles():
    scenes = list(held_out_scenes())[::2]
    recogniser = load_recogniser()
    for style, styled in (("flat", scenes), ("inked", [inked(scene) for scene in scenes])):
        styles = [reading["style"] for reading in recogniser.read_pictures(draw(styled))]
        assert styles.count(style) >= 0.95 * len(scenes)


def test_a_pair_agrees_only_if_each_shape_has_its_own_colour_and_place():
    wanted = Scene((STAR, RING), "white")
    swapped = Scene((Item("star", "blue"), Item("ring", "red")), "white")
    turned = Scene((Item("ring", "blue", x=-0.5), Item("star", "red", x=0.5)), "white")
    stacked = Scene((Item("star", "red", y=-0.5), Item("ring", "blue", y=0.5)), "pink")
    alone = Scene((STAR,), "white")
    outcomes = pair_agreement([wanted, swapped, turned, stacked, alone], [wanted] * 5)
    assert outcomes == {
        "objects": [True, True, True, True, False],
        "bound": [True, False, True, True, False],
        "relation": [True, False, False, False, False],
        "background": [True, True, True, False, True],
    }


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size <= 1_200_000


def test_labels_are_indices_into_the_lists_of_words():
    scene = Scene((Item("ring", "blue", radius=0.36, x=-0.5),), "red")
    words = {name: ATTRIBUTES[name][int(index)] for name, index in labels([scene]).items()}
    assert words == attributes(scene)
    assert (words["size"], words["column"], words["row"]) == ("small", "left", "centre")
