import re
from random import Random

import pytest
import torch
from refiners_playground.caption import WORDS, caption, plain_caption
from refiners_playground.random_scene import canonical_scene, placed_scene, varied_scene
from refiners_playground.scene import (
    COLOURS,
    SHAPES,
    Item,
    Scene,
    draw,
    held_out_scenes,
    is_held_out,
)


def scenes_of(make, count: int, seed: int = 0) -> list[Scene]:
    random = Random(seed)
    return [make(random) for _ in range(count)]


def test_the_same_scene_gives_the_same_pixels_alone_or_among_others():
    scenes = scenes_of(varied_scene, 300)
    together = draw(scenes)
    assert together.shape == (300, 3, 64, 64)
    assert torch.equal(together, draw(scenes))
    assert torch.equal(together[299:], draw(scenes[299:]))


def test_pixels_lie_between_0_and_1():
    pixels = draw(scenes_of(varied_scene, 200))
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_has_its_colour_and_leaves_the_corners_to_the_background(shape: str):
    pixels = draw([Scene((Item(shape, "red"),), "blue")])[0]
    red, blue = (torch.tensor(COLOURS[name]).view(3, 1) for name in ("red", "blue"))
    flat = pixels.flatten(1)
    assert (flat - red).abs().amax(0).lt(1e-6).float().mean() > 0.1
    assert torch.allclose(pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]], blue.expand(3, 4))


def test_shapes_differ_from_each_other_by_many_pixels():
    pixels = draw([Scene((Item(shape, "white"),), "black") for shape in SHAPES])
    for first in range(len(SHAPES)):
        for second in range(first):
            assert (pixels[first] - pixels[second]).abs().amax(0).gt(0.5).sum() > 100


def test_an_empty_list_of_scenes_gives_no_pictures():
    assert draw([]).shape == (0, 3, 64, 64)


def test_a_scene_can_be_drawn_at_another_size():
    scene = Scene((Item("ring", "green", fill="checked"),), "pink")
    large, small = draw([scene], 128), draw([scene], 64)
    halved = torch.nn.functional.avg_pool2d(large, 2)
    assert (halved - small).abs().mean() < 0.01


def test_one_seventh_of_the_combinations_is_held_out_from_training():
    held_out = {(s.items[0].shape, s.items[0].colour, s.background) for s in held_out_scenes()}
    assert len(held_out) == 102
    for make in (canonical_scene, varied_scene, placed_scene):
        for scene in scenes_of(make, 500):
            for item in scene.items:
                assert not is_held_out(item.shape, item.colour, scene.background)


def test_objects_stay_inside_the_picture():
    for scene in scenes_of(placed_scene, 300):
        item = scene.items[0]
        assert abs(item.x) + item.radius < 1.05
        assert abs(item.y) + item.radius < 1.05


def test_a_plain_caption_names_shape_colour_and_background():
    scene = Scene((Item("star", "orange"),), "white")
    assert plain_caption(scene) == "an orange star on a white background"


@pytest.mark.parametrize("make", [canonical_scene, placed_scene, varied_scene])
def test_captions_only_name_what_is_drawn(make):
    random = Random(3)
    for scene in scenes_of(make, 400):
        words = set(re.findall(r"\w+", caption(scene, random)))
        shapes = {item.shape for item in scene.items}
        colours = {item.colour for item in scene.items} | {scene.background}
        assert words & set(SHAPES) <= shapes
        assert words & set(COLOURS) <= colours


def test_captions_use_known_words_only():
    random = Random(4)
    for scene in scenes_of(varied_scene, 1000):
        assert set(re.findall(r"\w+|[,.]", caption(scene, random))) <= WORDS


def test_captions_name_positions():
    left = Item("star", "red", radius=0.36, x=-0.5)
    right = Item("ring", "blue", radius=0.36, x=0.5)
    random = Random(0)
    captions = {caption(Scene((left, right), "white"), random) for _ in range(200)}
    assert any("star left of" in text for text in captions)
    assert any("ring right of" in text for text in captions)
    assert not any("star right of" in text or "ring left of" in text for text in captions)
    corner = Scene((Item("star", "red", radius=0.36, x=-0.5, y=0.5),), "white")
    captions = {caption(corner, random) for _ in range(200)}
    assert any("in the bottom left corner" in text for text in captions)


def test_shapes_are_always_named_with_keep_shape():
    random = Random(5)
    for scene in scenes_of(canonical_scene, 200):
        assert scene.items[0].shape in caption(scene, random, keep_shape=True)
