from random import Random

from refiners_playground.random_scene import placed_scene
from refiners_playground.recogniser import (
    ATTRIBUTES,
    agreement,
    attributes,
    labels,
    load_recogniser,
)
from refiners_playground.scene import Item, Scene, draw, held_out_scenes


def test_the_recogniser_is_as_accurate_on_drawn_scenes_as_documented():
    random = Random(2_000_003)
    scenes = [placed_scene(random) for _ in range(154)] + list(held_out_scenes())
    shares = agreement(load_recogniser(), draw(scenes), scenes)
    assert len(scenes) == 256
    assert shares["shape"] >= 0.97
    assert shares["colour"] >= 0.99
    assert shares["background"] >= 0.99


def test_the_recogniser_reads_every_attribute_of_a_scene():
    scene = Scene((Item("heart", "pink"),), "green")
    assert load_recogniser().read(draw([scene])) == [attributes(scene)]


def test_the_recogniser_is_small():
    assert sum(weight.numel() for weight in load_recogniser().parameters()) <= 450_000


def test_labels_are_indices_into_the_lists_of_words():
    scene = Scene((Item("ring", "blue", radius=0.36, x=-0.5),), "red")
    words = {name: ATTRIBUTES[name][int(index)] for name, index in labels([scene]).items()}
    assert words == attributes(scene)
    assert (words["size"], words["column"], words["row"]) == ("small", "left", "centre")
