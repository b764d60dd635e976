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


def test_the_reader_reads_drawn_scenes_as_well_as_stated():
    random = Random(2_000_003)
    scenes = [placed_scene(random) for _ in range(154)] + list(held_out_scenes())
    found = agreement(load_recogniser(), draw(scenes), scenes)
    assert len(scenes) == 256
    assert found["shape"] >= 0.97
    assert found["colour"] >= 0.99
    assert found["background"] >= 0.99


def test_the_reader_names_what_it_sees():
    scene = Scene((Item("heart", "pink"),), "green")
    assert load_recogniser().read(draw([scene])) == [attributes(scene)]


def test_the_reader_is_small():
    assert sum(weight.numel() for weight in load_recogniser().parameters()) <= 450_000


def test_labels_are_places_in_the_lists_of_words():
    scene = Scene((Item("ring", "blue", radius=0.36, x=-0.5),), "red")
    found = {name: ATTRIBUTES[name][int(index)] for name, index in labels([scene]).items()}
    assert found == attributes(scene)
    assert (found["size"], found["column"], found["row"]) == ("small", "left", "centre")
